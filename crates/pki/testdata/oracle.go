// Command oracle says what Go's crypto/x509 thinks. Each line of standard input is a question:
//
//	usage time leaf intermediates roots host
//
// where usage is serverAuth or clientAuth, time is in seconds, certificates are DER in hexadecimal separated by commas,
// and host is hexadecimal; "-" stands for nothing. The answer is "verdict/verdict": whether the chain is accepted, and
// whether the leaf is for the host; each is ok or the error.
package main

import (
	"bufio"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

func certificates(field string) (found []*x509.Certificate, err error) {
	for _, text := range strings.Split(field, ",") {
		if text == "-" {
			continue
		}
		der, err := hex.DecodeString(text)
		if err != nil {
			return nil, err
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		found = append(found, certificate)
	}
	return found, nil
}

func pool(field string) (*x509.CertPool, error) {
	found, err := certificates(field)
	pool := x509.NewCertPool()
	for _, certificate := range found {
		pool.AddCert(certificate)
	}
	return pool, err
}

func answer(fields []string) (chain error, host error) {
	leaf, err := certificates(fields[2])
	if err != nil {
		return err, err
	}
	intermediates, err := pool(fields[3])
	if err != nil {
		return err, err
	}
	roots, err := pool(fields[4])
	if err != nil {
		return err, err
	}
	usage := x509.ExtKeyUsageServerAuth
	if fields[0] == "clientAuth" {
		usage = x509.ExtKeyUsageClientAuth
	}
	seconds, _ := strconv.ParseInt(fields[1], 10, 64)
	_, chain = leaf[0].Verify(x509.VerifyOptions{
		Intermediates: intermediates,
		Roots:         roots,
		CurrentTime:   time.Unix(seconds, 0),
		KeyUsages:     []x509.ExtKeyUsage{usage},
	})
	if fields[5] != "-" {
		name, _ := hex.DecodeString(fields[5])
		host = leaf[0].VerifyHostname(string(name))
	}
	return chain, host
}

func word(err error) string {
	if err == nil {
		return "ok"
	}
	return strings.NewReplacer("\n", " ", "/", " ").Replace(err.Error())
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		chain, host := answer(strings.Fields(lines.Text()))
		fmt.Printf("%s/%s\n", word(chain), word(host))
	}
}
