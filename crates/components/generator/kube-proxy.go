package main

import (
	"log"
	"os"
	"reflect"
	"unsafe"

	"github.com/spf13/pflag"
	"k8s.io/kube-proxy/config/v1alpha1"
	"k8s.io/kubernetes/cmd/kube-proxy/app"
	"k8s.io/kubernetes/pkg/proxy/apis/config/scheme"
)

const component = "kube-proxy"

func table() Table {
	command := app.NewProxyCommand()
	table := ofCommand(command)
	empty := new(v1alpha1.KubeProxyConfiguration)
	scheme.Scheme.Default(empty)
	file, err := os.CreateTemp("/tmp", "empty")
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(file.Name())
	if _, err := file.WriteString("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"); err != nil {
		log.Fatal(err)
	}
	configuration{empty: empty, given: given, file: "--config=" + file.Name()}.addTo(&table, command.Flags())
	return table
}

// given returns the configuration that a command line makes, as app.Options.Complete puts it together.
func given(arguments []string) (any, error) {
	options := app.NewOptions()
	set := pflag.NewFlagSet(component, pflag.ContinueOnError)
	options.AddFlags(set)
	if err := set.Parse(arguments); err != nil {
		return nil, err
	}
	if err := options.Complete(set); err != nil {
		return nil, err
	}
	// Which is not exported.
	field := reflect.ValueOf(options).Elem().FieldByName("config")
	internal := reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().Interface()
	versioned := new(v1alpha1.KubeProxyConfiguration)
	return versioned, scheme.Scheme.Convert(internal, versioned, nil)
}
