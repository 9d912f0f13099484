package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"
)

// keys tells the keys that a structure is read from: its fields' names in JSON, and those of the structures in it. With each comes
// its value in `value`, which is not valid where there is none.
func keys(structure reflect.Type, value reflect.Value, path []string, found func(Field, reflect.Value)) {
	for i := range structure.NumField() {
		field := structure.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "-" || !field.IsExported() && !field.Anonymous {
			continue
		}
		here, of := path, field.Type
		var in reflect.Value
		if value.IsValid() {
			in = value.Field(i)
		}
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
			if in.IsValid() {
				in = in.Elem()
			}
		}
		if field.Anonymous && name == "" {
			keys(of, in, path, found)
			continue
		}
		if name == "" {
			name = field.Name // which the decoder takes as well
		}
		if of.Kind() == reflect.Func || of.Kind() == reflect.Interface {
			continue // cannot be read from a file
		}
		here = append(append([]string(nil), path...), name)
		kind := shape(of)
		found(Field{Name: strings.Join(here, "."), Kind: kind}, in)
		if kind == "section" && len(here) < 5 {
			keys(of, in, here, found)
		}
	}
}

// shape returns what a key must hold.
func shape(of reflect.Type) string {
	if reflect.PointerTo(of).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return lowerFirst(of.Name()) // which reads itself
	}
	switch of.Kind() {
	case reflect.Bool:
		return "bool"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "int"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "uint"
	case reflect.Float32, reflect.Float64:
		return "float"
	case reflect.String:
		return "string"
	case reflect.Struct:
		return "section"
	case reflect.Slice:
		if of.Elem().Kind() == reflect.String {
			return "list"
		}
	case reflect.Map:
		if of.Elem().Kind() == reflect.String {
			return "map"
		}
	}
	return "other"
}

// differing returns the paths at which two configurations differ.
func differing(one, two map[string]string) map[string]bool {
	paths := make(map[string]bool)
	for _, pair := range [][2]map[string]string{{one, two}, {two, one}} {
		for path, value := range pair[0] {
			if other, ok := pair[1][path]; !ok || other != value {
				paths[path] = true
			}
		}
	}
	return paths
}

func lowerFirst(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToLower(first)) + text[size:]
}
