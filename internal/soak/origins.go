package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// world is everything that the engine may reach, and what came there.
type world struct {
	ledger  *ledger
	trapped atomic.Int64 // connections to where no rule leads
	close   []func()
}

func startWorld(l *ledger, good, bad *root) (_ *world, err error) {
	w := &world{ledger: l}
	defer func() {
		if err != nil {
			w.end()
		}
	}()
	cert, err := good.leaf(goodHost, plainHost, grpcHost, faultHost, slowHost)
	if err != nil {
		return nil, err
	}
	false1, err := bad.leaf(falseHost)
	if err != nil {
		return nil, err
	}
	for _, s := range []struct {
		addr string
		cert tls.Certificate
		h2   bool
	}{{goodAddr, cert, true}, {plainAddr, cert, false}, {falseAddr, false1, true}} {
		if err := w.serve(s.addr, s.cert, s.h2); err != nil {
			return nil, err
		}
	}
	if err := w.serveGRPC(cert); err != nil {
		return nil, err
	}
	return w, w.trap()
}

func (w *world) end() {
	for _, f := range w.close {
		f()
	}
}

func listen443(addr string) (net.Listener, error) {
	return net.Listen("tcp4", net.JoinHostPort(addr, "443"))
}

func (w *world) serve(addr string, cert tls.Certificate, h2 bool) error {
	ln, err := listen443(addr)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(w.handle), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, Protocols: new(http.Protocols),
		ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(h2)
	go func() { _ = srv.ServeTLS(ln, "", "") }()
	w.close = append(w.close, func() { _ = srv.Close() })
	return nil
}

// trap is where a denied name leads.
func (w *world) trap() error {
	ln, err := listen443(trapAddr)
	if err != nil {
		return err
	}
	w.close = append(w.close, func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			w.trapped.Add(1)
			_ = c.Close()
		}
	}()
	return nil
}

// summed is a body that is digested as it is read.
type summed struct {
	r   io.Reader
	sum [sha256.Size]byte
	n   int64
	all bool
}

func (s *summed) drain(dst io.Writer) {
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(h, dst), s.r)
	s.n, s.all = n, err == nil
	h.Sum(s.sum[:0])
}

func (s *summed) hex() string { return hex.EncodeToString(s.sum[:]) }

func (w *world) handle(rw http.ResponseWriter, r *http.Request) {
	a := w.ledger.arrive(r.Method, r.URL.Path)
	defer w.ledger.left(a)
	body := &summed{r: r.Body}
	n, _ := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64) // ours
	switch _, kind, _ := strings.Cut(r.URL.Path, "/"); kind[:strings.IndexByte(kind+"/", '/')] {
	case "echo", "judged", "flip":
		var all bytes.Buffer // HTTP/1's server stops reading when it is written to
		body.drain(&all)
		_, _ = rw.Write(all.Bytes()) // a client that left
	case "up":
		body.drain(io.Discard)
		fmt.Fprint(rw, body.hex())
	case "down":
		body.drain(io.Discard)
		rw.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		_, _ = io.Copy(rw, content(r.URL.Path, n)) // a client that left
	case "sse":
		body.drain(io.Discard)
		events(rw, r, int(n))
	case "ws":
		body.all = true
		echoSocket(rw, r)
	case "reset", "stall", "cut":
		body.drain(io.Discard)
		fault(rw, r)
	}
	w.ledger.saw(a, body)
}

// content is n bytes that nobody else's path has.
func content(path string, n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8(sha256.Sum256([]byte(path))), n)
}

func events(rw http.ResponseWriter, r *http.Request, n int) {
	rw.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := range n {
		fmt.Fprintf(rw, "data: %d\n\n", i)
		_ = http.NewResponseController(rw).Flush() // a client that left
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

func echoSocket(rw http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(rw, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, p, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if c.Write(r.Context(), kind, p) != nil {
			return
		}
	}
}

func fault(rw http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/stall/"):
		<-r.Context().Done()
	case strings.HasPrefix(r.URL.Path, "/cut/"):
		rw.Header().Set("Content-Length", "100000")
		_, _ = rw.Write(make([]byte, 50_000))
		panic(http.ErrAbortHandler)
	default:
		c, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if tc, ok := c.(*tls.Conn); ok {
			if tcp, ok := tc.NetConn().(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
				c = tcp
			}
		}
		_ = c.Close()
	}
}

func (w *world) serveGRPC(cert tls.Certificate) error {
	ln, err := listen443(grpcAddr)
	if err != nil {
		return err
	}
	srv := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&cert)), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(s)
		a := w.ledger.arrive(http.MethodPost, method)
		defer w.ledger.left(a)
		for {
			m := new(wrapperspb.BytesValue)
			if err := s.RecvMsg(m); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := s.SendMsg(m); err != nil {
				return err
			}
		}
	}))
	go func() { _ = srv.Serve(ln) }()
	w.close = append(w.close, srv.Stop)
	return nil
}

// dialThrough makes a tunnel through the engine.
func dialThrough(ctx context.Context, target string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", engineAddr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintf(c, "CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", target); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	head := make([]byte, 0, 512)
	for one := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); head = append(head, one[0]) {
		if _, err := c.Read(one); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	if !strings.HasPrefix(string(head), "HTTP/1.1 200") {
		return nil, errors.Join(fmt.Errorf("CONNECT %s: %s", target, head), c.Close())
	}
	return c, nil
}
