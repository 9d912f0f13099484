package main

import (
	"log"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/cli"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/cli/globalflag"
	"k8s.io/component-base/featuregate"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register" // as in each main, for its flags
	metricsfeatures "k8s.io/component-base/metrics/features"
	"k8s.io/component-base/version/verflag"
)

// init adds the feature gates that the packages add which run the components.
func init() {
	for _, add := range []func(featuregate.MutableVersionedFeatureGate) error{
		logsapi.AddFeatureGates, metricsfeatures.AddFeatureGates,
	} {
		if err := add(utilfeature.DefaultMutableFeatureGate); err != nil {
			log.Fatal(err)
		}
	}
}

// ofFlags returns the flags that a command has in the end: those in the sets, and those that the components' common command line
// adds.
func ofFlags(sets cliflag.NamedFlagSets) Table {
	command := &cobra.Command{Use: component}
	verflag.AddFlags(sets.FlagSet("global"))
	globalflag.AddGlobalFlags(sets.FlagSet("global"), component, logs.SkipLoggingConfigurationFlags())
	for _, set := range sets.FlagSets {
		command.Flags().AddFlagSet(set)
	}
	return ofCommand(command)
}

// ofCommand returns the flags of a command, with those that it is given when it is run.
func ofCommand(command *cobra.Command) Table {
	var table Table
	command.RunE = func(command *cobra.Command, _ []string) error {
		table = ofSet(command.Flags())
		return nil
	}
	command.SetArgs([]string{})
	if err := cli.RunNoErrOutput(command); err != nil {
		log.Fatal(err)
	}
	return table
}

// ofSet returns the flags of a set, and the feature gates that the component knows.
func ofSet(set *pflag.FlagSet) Table {
	var table Table
	set.VisitAll(func(flag *pflag.Flag) {
		found := Flag{
			Name:      flag.Name,
			Kind:      flag.Value.Type(),
			Default:   flag.DefValue,
			Shorthand: flag.Shorthand,
			Hidden:    flag.Hidden,
		}
		if found.Kind != "bool" {
			found.Bare = flag.NoOptDefVal
		}
		if flag.Deprecated != "" {
			found.Deprecated = &flag.Deprecated
		}
		table.Flags = append(table.Flags, found)
	})
	for name, gate := range utilfeature.DefaultMutableFeatureGate.GetAll() {
		stage := string(gate.PreRelease)
		if stage == "" {
			stage = "GA"
		}
		table.Gates = append(table.Gates, Gate{string(name), gate.Default, stage, gate.LockToDefault})
	}
	return table
}
