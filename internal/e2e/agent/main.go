// Command agent is what runs in the tests' agent pods: a program that knows
// nothing of the engine, and one that does everything to get around it. Each
// command prints what happened as one JSON value and exits with 0, whatever
// happened.
package main

import (
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		os.Args = append(os.Args, "wait") // as the image is started
	}
	switch args := os.Args[2:]; os.Args[1] {
	case "wait":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
		<-stop
	case "send":
		say(send(args))
	case "load":
		say(load(args))
	default:
		if attempt, ok := attempts()[os.Args[1]]; ok {
			say(attempt(args))
			return
		}
		fmt.Fprintln(os.Stderr, "agent: no such command:", os.Args[1])
		os.Exit(2)
	}
}

func say(v any) {
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

// answer is what a client sees of a request.
type answer struct {
	Status   int    `json:"status"`
	Proto    string `json:"proto"`
	Decision string `json:"decision"`
	Reason   string `json:"reason"`
	Type     string `json:"type"`
	Body     string `json:"body"`
	Root     string `json:"root,omitempty"` // common name of what the server's chain leads to
	Error    string `json:"error,omitempty"`
}

// send makes a request as Go programs do by default: proxy variables, system
// roots or SSL_CERT_FILE, HTTP/2 where it is offered.
func send(args []string) answer {
	f := flag.NewFlagSet("send", flag.ExitOnError)
	method := f.String("method", "GET", "")
	body := f.String("body", "", "")
	direct := f.Bool("direct", false, "ignore the proxy variables")
	insecure := f.Bool("insecure", false, "verify nothing")
	host := f.String("host", "", "the Host field, and the name in TLS, where it is not the URL's")
	token := f.String("token", "", "what the proxy is told: a token, or the file of one")
	f.Parse(args)
	t := http.DefaultTransport.(*http.Transport).Clone()
	if *token != "" {
		if data, err := os.ReadFile(*token); err == nil {
			*token = strings.TrimSpace(string(data))
		}
		t.ProxyConnectHeader = http.Header{"Proxy-Authorization": {"Bearer " + *token}}
		t.Proxy = func(r *http.Request) (*url.URL, error) { // plain http has no CONNECT: as the password in the proxy's URL
			u, err := http.ProxyFromEnvironment(r)
			if err != nil || u == nil || r.URL.Scheme == "https" {
				return u, err
			}
			with := *u
			with.User = url.UserPassword("aegrail", *token)
			return &with, nil
		}
	}
	if *direct {
		t.Proxy = nil
	}
	t.TLSClientConfig = &tls.Config{ServerName: *host, InsecureSkipVerify: *insecure}
	r, err := http.NewRequest(*method, f.Arg(0), strings.NewReader(*body))
	if err != nil {
		return answer{Error: err.Error()}
	}
	r.Host = *host
	got, err := (&http.Client{Transport: t, Timeout: 20 * time.Second}).Do(r)
	if err != nil {
		return answer{Error: err.Error()}
	}
	defer got.Body.Close()
	data, err := io.ReadAll(io.LimitReader(got.Body, 64<<10))
	a := answer{Status: got.StatusCode, Proto: got.Proto, Type: got.Header.Get("Content-Type"), Body: string(data)}
	a.Decision, a.Reason = got.Header.Get("X-Aegrail-Decision"), got.Header.Get("X-Aegrail-Reason")
	if got.TLS != nil && len(got.TLS.VerifiedChains) > 0 {
		chain := got.TLS.VerifiedChains[0]
		a.Root = chain[len(chain)-1].Subject.CommonName
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}
