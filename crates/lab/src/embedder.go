// A program with an etcd inside: its only argument is the etcd's configuration file. Without one it runs none.
package main

import (
	"log"
	"os"

	"go.etcd.io/etcd/server/v3/embed"
)

func main() {
	if len(os.Args) < 2 {
		select {}
	}
	config, err := embed.ConfigFromFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(<-etcd.Err())
}
