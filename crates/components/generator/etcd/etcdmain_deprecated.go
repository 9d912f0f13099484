package etcdmain

func init() {
	TablesDeprecated = deprecatedFlags
}
