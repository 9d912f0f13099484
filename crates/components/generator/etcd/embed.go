package embed

// This file is added to a copy of etcd's package, for what it shows is not exported.

// TablesFile returns a configuration with its defaults, what a configuration file is read into, and the reader.
func TablesFile() (*Config, interface{}, func(path string) error) {
	file := &configYAML{Config: *NewConfig()}
	return &file.Config, file, file.configFromFile
}
