package etcdmain

import "flag"

// This file is added to a copy of etcd's package, for what it shows is not exported.

// TablesFlags returns the flags of etcd, what they change, and the parser of a command line.
func TablesFlags() (*flag.FlagSet, interface{}, func(arguments []string) error) {
	all := newConfig()
	return all.cf.flagSet, all, all.parse
}

// TablesDeprecated is a map by the names of the deprecated flags, in the releases that have one.
var TablesDeprecated interface{}
