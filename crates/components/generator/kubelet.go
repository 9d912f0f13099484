package main

import (
	"log"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/kubelet/config/v1beta1"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	"k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/scheme"
	_ "k8s.io/kubernetes/pkg/kubelet/cadvisor" // which changes defaults of cadvisor
)

const component = "kubelet"

func table() Table {
	known, _, err := scheme.NewSchemeAndCodecs()
	if err != nil {
		log.Fatal(err)
	}
	flags, _, err := set()
	if err != nil {
		log.Fatal(err)
	}
	table := ofSet(flags)
	empty := new(v1beta1.KubeletConfiguration)
	known.Default(empty)
	given := func(arguments []string) (any, error) {
		flags, config, err := set()
		if err != nil {
			return nil, err
		}
		if err := flags.Parse(arguments); err != nil {
			return nil, err
		}
		versioned := new(v1beta1.KubeletConfiguration)
		return versioned, known.Convert(config, versioned, nil)
	}
	configuration{empty: empty, given: given}.addTo(&table, flags)
	return table
}

// set returns the flags of kubelet, as app.NewKubeletCommand puts them together, and what they change.
func set() (*pflag.FlagSet, *config.KubeletConfiguration, error) {
	config, err := options.NewKubeletConfiguration()
	if err != nil {
		return nil, nil, err
	}
	set := pflag.NewFlagSet(component, pflag.ContinueOnError)
	set.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	options.NewKubeletFlags().AddFlags(set)
	options.AddKubeletConfigFlags(set, config)
	options.AddGlobalFlags(set)
	set.BoolP("help", "h", false, "")
	return set, config, nil
}
