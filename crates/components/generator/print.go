// Prints the flags of one component as JSON. This file is compiled together with the file of the component, inside a module made
// for one release of it.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"sort"
	"syscall"
	"unsafe"
)

// Flag is one command-line flag.
type Flag struct {
	Name string `json:"name"`
	// Kind is how the program itself calls the type of the value.
	Kind string `json:"kind"`
	// Default is the value without the flag, as text.
	Default string `json:"default"`
	// Machine names what the default depends on, if it depends on anything of the machine; then Default is empty.
	Machine string `json:"machine,omitempty"`
	// Bare is the value of the flag when it is given without one, if it may be; a bool always may, and is then true.
	Bare string `json:"bare,omitempty"`
	// Shorthand is the one-letter name, if there is one.
	Shorthand string `json:"shorthand,omitempty"`
	Hidden    bool   `json:"hidden,omitempty"`
	// Deprecated is what the program says when the flag is used, and is not null if the flag is deprecated.
	Deprecated *string `json:"deprecated,omitempty"`
	// Values are the only ones that the flag takes, if it says so.
	Values []string `json:"values,omitempty"`
	// Field is the key of the configuration file that does the same.
	Field string `json:"field,omitempty"`
	// FileWins says that the flag has no effect beside a configuration file, whatever stands in that.
	FileWins bool `json:"file_wins,omitempty"`
}

// Field is one key of the configuration file.
type Field struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	// Default is the value without the key, as text, or nil if there is none.
	Default *string `json:"default,omitempty"`
}

// Gate is one feature gate.
type Gate struct {
	Name    string `json:"name"`
	Default bool   `json:"default"`
	Stage   string `json:"stage"`
	// Locked says that the gate cannot be set to anything but its default.
	Locked bool `json:"locked,omitempty"`
}

// Plugin is one admission plugin.
type Plugin struct {
	Name string `json:"name"`
	// Default says whether it is on unless somebody turns it off.
	Default bool `json:"default"`
}

// Table is all that is printed.
type Table struct {
	Flags   []Flag   `json:"flags"`
	Fields  []Field  `json:"fields,omitempty"`
	Gates   []Gate   `json:"gates,omitempty"`
	Plugins []Plugin `json:"plugins,omitempty"`
}

// surroundings are what a default may depend on.
type surroundings struct {
	HostName  string
	Home      string
	Directory string
	// OneProcessor gives the process one processor instead of all.
	OneProcessor bool
}

const variable = "TABLES_SURROUNDINGS"

func main() {
	log.SetFlags(0)
	if len(os.Args) > 1 && os.Args[1] == "print" {
		log.SetOutput(os.NewFile(3, "messages")) // for what the component says goes elsewhere
		out := os.Stdout
		os.Stdout = os.Stderr
		if err := json.NewEncoder(out).Encode(table()); err != nil {
			log.Fatal(err)
		}
		return
	}
	if text, ok := os.LookupEnv(variable); ok {
		log.Fatal(enter(text))
	}
	found, err := compare()
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		log.Fatal(err)
	}
}

// compare prints the table in surroundings that differ in one thing each, and returns it with the defaults that differ marked.
func compare() (*Table, error) {
	if runtime.NumCPU() < 2 {
		return nil, errors.New("which defaults depend on the number of processors cannot be told on a machine with one")
	}
	usual := surroundings{HostName: "tables-a", Home: "/tables-a", Directory: "/"}
	base, err := printed(usual)
	if err != nil {
		return nil, err
	}
	host, home, directory, one := usual, usual, usual, usual
	host.HostName = "tables-b"
	home.Home = "/tables-b"
	directory.Directory = "/proc"
	one.OneProcessor = true
	for _, other := range []struct {
		what string
		in   surroundings
	}{
		{"chance", usual},
		{"host name", host},
		{"environment", home},
		{"working directory", directory},
		{"processors", one},
	} {
		table, err := printed(other.in)
		if err != nil {
			return nil, err
		}
		if len(table.Flags) != len(base.Flags) {
			return nil, fmt.Errorf("which flags there are depends on: %s", other.what)
		}
		for i := range base.Flags {
			if flag := &base.Flags[i]; flag.Machine == "" && flag.Default != table.Flags[i].Default {
				flag.Machine, flag.Default = other.what, ""
			}
		}
		if !reflect.DeepEqual(table.Fields, base.Fields) {
			return nil, fmt.Errorf("a default of the configuration file depends on: %s", other.what)
		}
	}
	return base, nil
}

// printed runs this program in the surroundings and returns the table that it prints.
func printed(in surroundings) (*Table, error) {
	text, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	self := exec.Command("/proc/self/exe")
	self.Env = []string{
		variable + "=" + string(text), "PATH=/usr/bin:/bin", "HOME=" + in.Home, "TMPDIR=" + in.Home + "/tmp",
		"USER=" + in.Home[1:], "LOGNAME=" + in.Home[1:],
	}
	self.Dir = in.Directory
	var said bytes.Buffer
	self.Stderr = &said
	self.ExtraFiles = []*os.File{os.Stderr}
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUTS | syscall.CLONE_NEWNET}
	if id := os.Geteuid(); id != 0 {
		self.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		self.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
	}
	out, err := self.Output()
	if err != nil {
		return nil, fmt.Errorf("this program in namespaces of its own: %w\n%s", err, said.Bytes())
	}
	table := new(Table)
	if err := json.Unmarshal(out, table); err != nil {
		return nil, err
	}
	sort.Slice(table.Flags, func(i, j int) bool { return table.Flags[i].Name < table.Flags[j].Name })
	sort.Slice(table.Fields, func(i, j int) bool { return table.Fields[i].Name < table.Fields[j].Name })
	sort.Slice(table.Gates, func(i, j int) bool { return table.Gates[i].Name < table.Gates[j].Name })
	sort.Slice(table.Plugins, func(i, j int) bool { return table.Plugins[i].Name < table.Plugins[j].Name })
	return table, nil
}

// enter arranges the surroundings, which only this process has, and starts this program anew in them, for packages look at them
// when they are initialised.
func enter(text string) error {
	var in surroundings
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(in.HostName)); err != nil {
		return err
	}
	runtime.LockOSThread()
	if in.OneProcessor {
		var mask [128]uint64
		size, at := unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask))
		if _, _, e := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, size, at); e != 0 {
			return e
		}
		for i, word := range mask {
			if word != 0 {
				mask = [128]uint64{}
				mask[i] = word & -word
				break
			}
		}
		if _, _, e := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, size, at); e != 0 {
			return e
		}
	}
	if err := os.Unsetenv(variable); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", []string{component, "print"}, os.Environ())
}
