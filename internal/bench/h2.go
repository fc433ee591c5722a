package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
)

// h2Client is net/http's HTTP/2 client over one connection to a place.
func (l *lab) h2Client(p *running, to place) *http.Transport {
	return &http.Transport{
		ForceAttemptHTTP2: true, DisableCompression: true,
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			c, err := l.dial(p, to, "h2")
			if err != nil {
				return nil, err
			}
			return c.c, nil
		},
		TLSClientConfig: &tls.Config{NextProtos: []string{"h2"}},
	}
}

// overH2 does the same thing over and over, n at a time, on one HTTP/2
// connection. once is called before, so that there is one connection and not
// one for each.
func (l *lab) overH2(ctx context.Context, p *running, n int, once func() error) ([]float64, error) {
	if err := once(); err != nil {
		return nil, p.failed(err)
	}
	works := make([]work, n)
	for i := range works {
		works[i] = func(stop *atomic.Bool, done *atomic.Int64) error {
			for !stop.Load() {
				if err := once(); err != nil {
					return err
				}
				done.Add(1)
			}
			return nil
		}
	}
	v, err := l.steady(ctx, p, works)
	return []float64{v}, err
}

// streams is small POSTs over one HTTP/2 connection, n at a time; the unit is
// the exchange.
func streams(n int) measure {
	return func(ctx context.Context, l *lab, p *running) ([]float64, error) {
		t := l.h2Client(p, ordinary)
		defer t.CloseIdleConnections()
		body := filler(small)
		url := "https://" + l.authority(ordinary) + "/r/1024"
		return l.overH2(ctx, p, n, func() error {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
			if err != nil {
				return err
			}
			resp, err := t.RoundTrip(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if got, err := io.Copy(io.Discard, resp.Body); err != nil || got != small || resp.StatusCode != 200 || resp.ProtoMajor != 2 {
				return fmt.Errorf("%s %s with %d bytes: %w", resp.Proto, resp.Status, got, err)
			}
			return nil
		})
	}
}

// A gRPC call as the load and the origin speak it: messages of five bytes of
// head and a payload, HTTP/2 on both sides, the status in trailers.

const grpcMethod = "/bench.Echo/Say"

func grpcMessage(payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(payload))), payload...)
}

func (l *lab) grpcRequest(ctx context.Context, body io.Reader) (*http.Request, error) {
	// The wrapper hides the length: gRPC's clients name none.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+l.authority(remote)+grpcMethod, struct{ io.Reader }{body})
	if err == nil {
		req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {"bench/1"}}
	}
	return req, err
}

func grpcOK(resp *http.Response) error {
	if s := resp.Trailer.Get("Grpc-Status"); s != "0" || resp.StatusCode != 200 {
		return fmt.Errorf("the call ended with %s, status %q: %s", resp.Status, s, resp.Header.Get("Grpc-Message"))
	}
	return nil
}

// unary is gRPC calls of one small message each way over one connection, n at a
// time; the unit is the call.
func unary(n int) measure {
	return func(ctx context.Context, l *lab, p *running) ([]float64, error) {
		t := l.h2Client(p, remote)
		defer t.CloseIdleConnections()
		message := grpcMessage(filler(small))
		return l.overH2(ctx, p, n, func() error { return l.call(ctx, t, message) })
	}
}

// call makes one call of one message.
func (l *lab) call(ctx context.Context, t *http.Transport, message []byte) error {
	req, err := l.grpcRequest(ctx, bytes.NewReader(message))
	if err != nil {
		return err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.Copy(io.Discard, resp.Body)
	if err == nil && got != int64(len(message)) {
		err = fmt.Errorf("%d bytes came back, want %d", got, len(message))
	}
	return errors.Join(err, grpcOK(resp))
}

// bidirectional is calls that stay open, n over one connection, in which
// messages of 1 KiB go to and fro; the unit is the message, so an echo is two.
func bidirectional(n int) measure {
	return func(ctx context.Context, l *lab, p *running) ([]float64, error) {
		t := l.h2Client(p, remote)
		defer t.CloseIdleConnections()
		message := grpcMessage(filler(small))
		works := make([]work, n)
		for i := range works {
			r, w := io.Pipe()
			req, err := l.grpcRequest(ctx, r)
			if err != nil {
				return nil, err
			}
			go func() { _, _ = w.Write(message) }() // a proxy may wait for the first
			resp, err := t.RoundTrip(req)
			if err != nil {
				return nil, p.failed(err)
			}
			defer resp.Body.Close()
			works[i] = func(stop *atomic.Bool, done *atomic.Int64) error {
				got := make([]byte, len(message))
				for {
					if _, err := io.ReadFull(resp.Body, got); err != nil {
						return errors.Join(err, grpcOK(resp))
					}
					if done.Add(2); stop.Load() {
						break
					}
					if _, err := w.Write(message); err != nil {
						return err
					}
				}
				if err := w.Close(); err != nil {
					return err
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					return err
				}
				return grpcOK(resp)
			}
		}
		v, err := l.steady(ctx, p, works)
		return []float64{v}, err
	}
}

// serveCalls answers gRPC calls: each message is sent back.
func (o *origin) serveCalls() {
	conf := o.conf.Clone()
	conf.NextProtos = []string{"h2"}
	conf.VerifyConnection = func(st tls.ConnectionState) error {
		o.note(st)
		return nil
	}
	s := &http.Server{TLSConfig: conf, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		flush := http.NewResponseController(w)
		message := make([]byte, len(grpcMessage(nil))+small)
		for {
			if _, err := io.ReadFull(r.Body, message); err == io.EOF {
				w.Header().Set("Grpc-Status", "0")
				return
			} else if err != nil {
				return
			}
			if _, err := w.Write(message); err != nil || flush.Flush() != nil {
				return
			}
		}
	})}
	go func() { _ = s.ServeTLS(o.ln[called], "", "") }() // until the listener is closed
}
