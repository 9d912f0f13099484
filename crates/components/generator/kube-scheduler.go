package main

import "k8s.io/kubernetes/cmd/kube-scheduler/app/options"

const component = "kube-scheduler"

func table() Table {
	return ofFlags(*options.NewOptions().Flags)
}
