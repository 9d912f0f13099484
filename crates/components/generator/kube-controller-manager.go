package main

import (
	"log"

	"k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
)

const component = "kube-controller-manager"

func table() Table {
	all, err := options.NewKubeControllerManagerOptions()
	if err != nil {
		log.Fatal(err)
	}
	// Names of controllers stand in the description of a flag only.
	return ofFlags(all.Flags(nil, nil, nil))
}
