package main

import (
	"encoding/json"
	"log"
	"reflect"
	"slices"
	"strconv"

	"github.com/spf13/pflag"
)

// candidates are given to flags until one of them is understood and changes something.
var candidates = []string{
	"1234", "1234s", "10.0.0.7", "10.0.0.7:4007", "true", "false", "0.5", "AllAlpha=false", "a=1", "a<1", "a:b", "a=b:NoSchedule",
	"0:memory=1Gi",
}

// configuration says how a component gets its configuration.
type configuration struct {
	// empty is what a file is read into in which nothing stands.
	empty any
	// given returns the configuration that a command line makes, as it would stand in a file.
	given func(arguments []string) (any, error)
	// file is an argument that names a file in which nothing stands, if flags may be without effect beside one.
	file string
}

// addTo adds the keys of the configuration file to a table, and to its flags what they have to do with it.
func (c configuration) addTo(table *Table, flags *pflag.FlagSet) {
	keys(reflect.TypeOf(c.empty).Elem(), reflect.ValueOf(c.empty).Elem(), nil, func(field Field, value reflect.Value) {
		if field.Kind != "section" {
			field.Default = text(value)
		}
		table.Fields = append(table.Fields, field)
	})
	without := c.values()
	var beside map[string]string
	if c.file != "" {
		beside = c.values(c.file)
	}
	for i := range table.Flags {
		found := &table.Flags[i]
		if slices.Contains([]string{"config", "help", "version"}, found.Name) || flags.Lookup(found.Name) == nil {
			continue
		}
		for _, candidate := range candidates {
			argument := "--" + found.Name + "=" + candidate
			changed := differing(without, c.values(argument))
			if len(changed) == 0 {
				continue
			}
			if len(changed) > 1 {
				log.Printf("--%s does what several keys do: %v", found.Name, changed)
			}
			for path := range changed {
				if found.Field == "" || len(path) < len(found.Field) || len(path) == len(found.Field) && path < found.Field {
					found.Field = path
				}
			}
			found.FileWins = beside != nil && len(differing(beside, c.values(c.file, argument))) == 0
			break
		}
	}
}

// values returns the values in the configuration that a command line makes, by their keys; the same as without any if something in
// it is not understood.
func (c configuration) values(arguments ...string) map[string]string {
	config, err := c.given(arguments)
	if err != nil {
		config, err = c.given(nil)
	}
	if err != nil {
		log.Fatal(err)
	}
	values := make(map[string]string)
	keys(reflect.TypeOf(config).Elem(), reflect.ValueOf(config).Elem(), nil, func(field Field, value reflect.Value) {
		if text := text(value); text != nil && field.Kind != "section" {
			values[field.Name] = *text
		}
	})
	return values
}

// text returns a value as text: a string as it is, all else as JSON, and nil for none.
func text(value reflect.Value) *string {
	if !value.IsValid() || (value.Kind() == reflect.Slice || value.Kind() == reflect.Map) && value.IsNil() {
		return nil
	}
	bytes, err := json.Marshal(value.Interface())
	if err != nil {
		log.Fatal(err)
	}
	text := string(bytes)
	if unquoted, err := strconv.Unquote(text); err == nil {
		text = unquoted
	}
	return &text
}
