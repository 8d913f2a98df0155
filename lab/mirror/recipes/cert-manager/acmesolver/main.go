// Answers one HTTP-01 challenge of ACME; cert-manager's controller starts it with these flags.
package main

import (
	"flag"
	"os"

	"github.com/cert-manager/cert-manager/pkg/issuer/acme/http/solver"
	"github.com/cert-manager/cert-manager/pkg/logs"
)

func main() {
	var answer solver.HTTP01Solver
	flag.IntVar(&answer.ListenPort, "listen-port", 8089, "TCP port")
	flag.StringVar(&answer.Domain, "domain", "", "host name that is asked for")
	flag.StringVar(&answer.Token, "token", "", "name of the challenge")
	flag.StringVar(&answer.Key, "key", "", "answer to the challenge")
	flag.Parse()
	if err := answer.Listen(logs.Log); err != nil {
		logs.Log.Error(err, "ended")
		os.Exit(1)
	}
}
