package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"reflect"
	"strconv"
	"strings"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdmain"
)

const component = "etcd"

// text is given to whatever takes text: the checks of URLs accept it, and it is no default.
const text = "http://127.0.0.7:4007"

// parts are the configuration of a member, and that of a proxy in the releases that have one.
var parts = []string{"ec", "cp"}

func table() Table {
	os.Clearenv() // of which etcd reads variables
	fields, changes := ofFile()
	table := Table{Fields: fields}
	deprecated := reflect.ValueOf(etcdmain.TablesDeprecated)
	set, all, _ := etcdmain.TablesFlags()
	set.VisitAll(func(f *flag.Flag) {
		found := Flag{Name: f.Name, Kind: kind(f.Value), Default: f.DefValue}
		if boolean, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && boolean.IsBoolFlag() && found.Kind != "bool" {
			found.Bare = "true"
		}
		if selective, ok := f.Value.(interface{ Valids() []string }); ok {
			found.Values = selective.Valids()
		}
		if deprecated.IsValid() {
			if message := deprecated.MapIndex(reflect.ValueOf(f.Name)); message.IsValid() {
				found.Deprecated = new(string)
				if message.Kind() == reflect.String {
					*found.Deprecated = message.String()
				}
			}
		}
		found.Field = field(f, changes)
		table.Flags = append(table.Flags, found)
	})
	table.Gates = gates(reflect.ValueOf(all).Elem().FieldByName("ec"))
	return table
}

// kind returns the name of the type of a flag's value, without what all such names have in common.
func kind(value flag.Value) string {
	name := reflect.TypeOf(value).String()
	name = name[strings.LastIndexByte(name, '.')+1:]
	name = strings.TrimSuffix(strings.TrimSuffix(name, "Value"), "Flag")
	return lowerFirst(name)
}

// field returns the key of the configuration file that changes what the flag changes.
func field(f *flag.Flag, changes map[string]map[string]bool) string {
	if f.Name == "config-file" || f.Name == "version" || kind(f.Value) == "ignored" {
		return ""
	}
	without, _ := parsed(nil)
	with, _ := parsed([]string{"--" + f.Name + "=" + other(f)}) // also where the value is found wrong later
	best, of := "", 1<<30
	changed := differing(without, with)
	if len(changed) == 0 {
		return ""
	}
	for name, byKey := range changes {
		all := true
		for path := range changed {
			all = all && byKey[path]
		}
		if all && name == f.Name {
			return name
		}
		if all && (len(byKey) < of || len(byKey) == of && name < best) {
			best, of = name, len(byKey)
		}
	}
	if byKey, ok := changes[f.Name]; best == "" && ok {
		// The flag has effects beside its own.
		for path := range changed {
			if byKey[path] {
				best = f.Name
			}
		}
	}
	if best == "" {
		log.Printf("no key of the configuration file does what --%s does: %v", f.Name, changed)
	}
	return best
}

// parsed returns what a command line makes of the configuration, and whether nothing in it is wrong.
func parsed(arguments []string) (map[string]string, bool) {
	_, all, parse := etcdmain.TablesFlags()
	ok := try(func() error { return parse(arguments) })
	values := make(map[string]string)
	for _, part := range parts {
		if part := reflect.ValueOf(all).Elem().FieldByName(part); part.IsValid() {
			walk(part, "", 0, values)
		}
	}
	return values, ok
}

// try lets etcd change a configuration, and returns whether etcd neither finds a value wrong afterwards nor panics at it.
func try(change func() error) (ok bool) {
	defer func() { _ = recover() }()
	return change() == nil
}

// other returns a value for the flag that is not its default.
func other(f *flag.Flag) string {
	if selective, ok := f.Value.(interface{ Valids() []string }); ok {
		for _, valid := range selective.Valids() {
			if valid != f.DefValue {
				return valid
			}
		}
	}
	if on, err := strconv.ParseBool(f.DefValue); err == nil && strings.HasPrefix(kind(f.Value), "bool") {
		return strconv.FormatBool(!on)
	}
	switch kind(f.Value) {
	case "int", "int64", "uint", "uint32", "uint64":
		return "1234"
	case "float64":
		return "0.5"
	case "duration":
		return "1234s"
	case "featureGate":
		return "AllAlpha=true"
	}
	return text
}

// ofFile returns the keys of the configuration file, and for each what it changes in the configuration.
func ofFile() ([]Field, map[string]map[string]bool) {
	_, file, _ := embed.TablesFile()
	var fields []Field
	add := func(field Field, _ reflect.Value) { fields = append(fields, field) }
	keys(reflect.TypeOf(file).Elem(), reflect.Value{}, nil, add)
	_, all, _ := etcdmain.TablesFlags()
	if proxy, ok := reflect.TypeOf(all).Elem().FieldByName("cp"); ok {
		keys(proxy.Type, reflect.Value{}, nil, add)
	}
	changes := make(map[string]map[string]bool)
	withoutRead, withoutInEffect := read("{}")
	for _, field := range fields {
		changes[field.Name] = make(map[string]bool)
		for _, value := range candidates(field) {
			path := strings.Split(field.Name, ".")
			for i := len(path) - 1; i >= 0; i-- {
				value = map[string]any{path[i]: value}
			}
			document, err := json.Marshal(value)
			if err != nil {
				log.Fatal(err)
			}
			read, inEffect := read(string(document))
			maps.Copy(changes[field.Name], differing(withoutRead, read))
			if inEffect != nil {
				maps.Copy(changes[field.Name], differing(withoutInEffect, inEffect))
			}
		}
	}
	return fields, changes
}

// candidates returns values for the key, of which at least one is not its default.
func candidates(field Field) []any {
	set, _, _ := etcdmain.TablesFlags()
	flag := set.Lookup(strings.ToLower(field.Name))
	switch {
	case field.Kind == "string" && flag != nil:
		return []any{other(flag)} // for etcd exits at some wrong values
	case field.Kind == "bool":
		return []any{true, false}
	case field.Kind == "int" || field.Kind == "uint":
		return []any{1234}
	case field.Kind == "list":
		return []any{[]string{text}}
	case field.Kind == "string":
		return []any{text}
	}
	return nil
}

// read returns what a configuration file makes of the configuration when it is read, and in the end; nil if something in it is wrong.
func read(document string) (map[string]string, map[string]string) {
	path := os.TempDir() + "/tables-" + strconv.Itoa(os.Getpid()) + ".json"
	if err := os.WriteFile(path, []byte(document), 0o600); err != nil {
		log.Fatal(err)
	}
	defer os.Remove(path)
	config, _, from := embed.TablesFile()
	try(func() error { return from(path) })
	values := make(map[string]string)
	walk(reflect.ValueOf(config).Elem(), "", 0, values)
	inEffect, ok := parsed([]string{"--config-file=" + path})
	if !ok {
		inEffect = nil
	}
	return values, inEffect
}

// walk notes the values in a configuration by their paths.
func walk(value reflect.Value, path string, depth int, values map[string]string) {
	if depth > 8 {
		return
	}
	switch value.Kind() {
	case reflect.Struct:
		for i := range value.NumField() {
			name := value.Type().Field(i).Name
			// What logs is made anew each time, and FlagsExplicitlySet is about the flags themselves.
			field := value.Field(i)
			logs := strings.Contains(strings.ToLower(name), "logger") && field.Kind() != reflect.String
			if logs || name == "FlagsExplicitlySet" {
				continue
			}
			walk(field, path+"."+name, depth+1, values)
		}
	case reflect.Pointer, reflect.Interface:
		if !value.IsNil() {
			walk(value.Elem(), path, depth+1, values)
		}
	case reflect.Slice, reflect.Array:
		values[path] = strconv.Itoa(value.Len())
		for i := range value.Len() {
			walk(value.Index(i), path+"[]", depth+1, values)
		}
	case reflect.Map:
		values[path] = strconv.Itoa(value.Len())
		for entries := value.MapRange(); entries.Next(); {
			entry := fmt.Sprintf("%s{%v}", path, entries.Key())
			values[entry] = "here;"
			walk(entries.Value(), entry, depth+1, values)
		}
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
	default:
		values[path] += fmt.Sprint(value) + ";"
	}
}

// gates returns the feature gates of the configuration, in the releases that have them.
func gates(config reflect.Value) []Gate {
	if !config.FieldByName("ServerFeatureGate").IsValid() {
		return nil
	}
	_, file, _ := embed.TablesFile() // whose configuration can be asked, other than the one in a field that is not exported
	gate := reflect.ValueOf(file).Elem().FieldByName("ServerFeatureGate")
	var gates []Gate
	all := gate.Elem().MethodByName("GetAll").Call(nil)[0]
	for entries := all.MapRange(); entries.Next(); {
		spec := entries.Value()
		stage := spec.FieldByName("PreRelease").String()
		if stage == "" {
			stage = "GA"
		}
		locked := spec.FieldByName("LockToDefault").Bool()
		gates = append(gates, Gate{entries.Key().String(), spec.FieldByName("Default").Bool(), stage, locked})
	}
	return gates
}
