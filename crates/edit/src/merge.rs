//! The lines of an edit undone where others may have changed other lines since.

use similar::{DiffTag, capture_diff_slices};

/// Returns `now` with the lines that lead from `written` to `former`; `None` where lines that the change is about, or both of
/// their neighbours, are no longer there.
///
/// Each change is made where its own lines are, whatever happened right beside them. What the result means is for the
/// caller to check.
pub(crate) fn merge(written: &[u8], now: &[u8], former: &[u8]) -> Option<Vec<u8>> {
    let lines = |bytes: &'_ [u8]| -> Vec<Vec<u8>> {
        bytes.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect()
    };
    let (written, now, former) = (lines(written), lines(now), lines(former));
    let algorithm = similar::Algorithm::Myers;
    // Where each line that was written is now.
    let mut places: Vec<Option<usize>> = vec![None; written.len()];
    for operation in capture_diff_slices(algorithm, &written, &now) {
        let (tag, old, new) = operation.as_tag_tuple();
        if tag == DiffTag::Equal {
            for (from, to) in old.zip(new) {
                *places.get_mut(from)? = Some(to);
            }
        }
    }
    let place = |line: usize| places.get(line).copied().flatten();
    let mut merged = now.clone();
    let mut changes = Vec::new();
    for operation in capture_diff_slices(algorithm, &written, &former) {
        let (tag, old, new) = operation.as_tag_tuple();
        if tag == DiffTag::Equal {
            continue;
        }
        let at = match old.is_empty() {
            false => {
                let start = place(old.start)?;
                let together =
                    old.clone().enumerate().all(|(offset, line)| place(line) == Some(start + offset));
                together.then_some(start..start + old.len())?
            }
            true => {
                let after = old.start.checked_sub(1).and_then(place).map(|before| before + 1);
                let at = after.or_else(|| place(old.start))?;
                at..at
            }
        };
        changes.push((at, former.get(new)?.to_vec()));
    }
    for (at, lines) in changes.into_iter().rev() {
        merged.splice(at, lines);
    }
    Some(merged.concat())
}
