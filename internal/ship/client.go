package ship

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Limits of what is read from receivers, and how long they may take.
const (
	requestTimeout = 30 * time.Second // of a whole request, from the resolver to the last byte of the answer
	maxAnswer      = 64 << 10         // 64 KiB: the body of an answer
	maxAnswerHead  = 64 << 10         // 64 KiB
)

// newClient makes a client that does what it is told: no redirects, no proxy
// from the environment, no compression that it undoes by itself.
func newClient(c Config) *http.Client {
	return &http.Client{
		Timeout: cmp.Or(c.timeout, requestTimeout),
		Transport: &http.Transport{
			DialContext:            c.Dial,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.Roots},
			TLSHandshakeTimeout:    10 * time.Second,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true,
			MaxIdleConns:           1,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: maxAnswerHead,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// refusal is an answer that does not acknowledge.
type refusal struct {
	text      string
	permanent bool          // trying again does not help: somebody has to change something
	after     time.Duration // what the receiver asked us to wait; 0: nothing
}

func (r *refusal) Error() string { return r.text }

// judge returns nil for an answer that acknowledges.
func judge(status int, h http.Header) error {
	switch {
	case status/100 == 2:
		return nil
	case status/100 == 3:
		return &refusal{text: fmt.Sprintf("answered %d, and redirects are not followed; give the address that it leads to", status), permanent: true}
	}
	r := &refusal{text: fmt.Sprintf("answered %d %s", status, http.StatusText(status))}
	r.permanent = status/100 == 4 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests
	if s, err := strconv.ParseUint(h.Get("Retry-After"), 10, 31); err == nil {
		r.after = time.Duration(s) * time.Second //nolint:gosec // at most 31 bits
	}
	return r
}

// post sends req to t, with its credentials, and returns nil if that was
// acknowledged.
func (t *Target) post(ctx context.Context, client *http.Client, req *http.Request) error {
	if t.header != "" {
		req.Header.Set("Authorization", t.header)
	}
	resp, err := client.Do(req.WithContext(ctx))
	if err != nil {
		return bare(err)
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)) // so that the connection can be used again
	if err := judge(resp.StatusCode, resp.Header); err != nil {
		return err
	}
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}

// bare takes the URL out of an error of net/http.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	return err
}
