package main

import (
	"slices"

	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

const component = "kube-apiserver"

func table() Table {
	all := options.NewServerRunOptions()
	table := ofFlags(all.Flags())
	admission := all.Admission.GenericAdmission
	for _, name := range admission.Plugins.Registered() {
		on := slices.Contains(admission.RecommendedPluginOrder, name) && !admission.DefaultOffPlugins.Has(name)
		table.Plugins = append(table.Plugins, Plugin{name, on})
	}
	return table
}
