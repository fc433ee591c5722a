package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// origin is the server behind every proxy. It answers
//
//	ANY /r/N         after the request's body, N bytes
//	GET /sse/N/US    N events, US microseconds apart, each with its time of sending
//	GET /ws          by becoming a WebSocket that sends back what comes
//
// over HTTP/1.1 on TLS, a goroutine a connection. It shares its core with the
// load generator, so it does little. Each service has a port.
type origin struct {
	addr [services]string
	ln   [services]net.Listener
	conf *tls.Config

	mu   sync.Mutex
	tls  map[string]int // what was negotiated, in words → connections
	errs []error
}

const (
	bulkPiece  = 64 << 10
	originRead = 32 << 10 // read buffer of a connection: two TLS records
)

func startOrigin(dir string) (*origin, error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, originFile), filepath.Join(dir, originFile))
	if err != nil {
		return nil, err
	}
	o := &origin{tls: map[string]int{}, conf: &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519}, NextProtos: []string{"http/1.1"}, DynamicRecordSizingDisabled: true,
	}}
	for s := range services {
		if o.ln[s], err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
			return nil, errors.Join(err, o.close())
		}
		o.addr[s] = o.ln[s].Addr().String()
	}
	go o.accept(pooled)
	go o.accept(closing)
	o.serveCalls()
	return o, nil
}

func (o *origin) close() error {
	var errs []error
	for _, ln := range o.ln {
		if ln != nil {
			errs = append(errs, ln.Close())
		}
	}
	return errors.Join(errs...)
}

func (o *origin) port(s service) string {
	_, port, _ := net.SplitHostPort(o.addr[s])
	return port
}

func (o *origin) accept(which service) {
	answers := map[int64][]byte{}
	conf := o.conf
	more := ""
	if which == closing {
		conf, more = conf.Clone(), "Connection: close\r\n"
		conf.SessionTicketsDisabled = true
	}
	for _, n := range []int64{0, 2, small, medium} {
		answers[n] = append(answerHead(more+contentLength(n)), filler(int(n))...)
	}
	for {
		c, err := o.ln[which].Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			tc := tls.Server(c, conf)
			if err := tc.Handshake(); err != nil {
				return // a proxy that was stopped
			}
			o.note(tc.ConnectionState())
			s := originConn{c: tc, r: bufio.NewReaderSize(tc, originRead), answers: answers, closes: which == closing}
			if err := s.serve(); err != nil && err != io.EOF {
				o.mu.Lock()
				o.errs = append(o.errs, err)
				o.mu.Unlock()
			}
		}()
	}
}

// negotiated says what a connection came to, so that proxies can be held to it.
func negotiated(st tls.ConnectionState) string {
	return fmt.Sprintf("%s, %s, %s", tls.VersionName(st.Version), st.CurveID, tls.CipherSuiteName(st.CipherSuite))
}

// expected is what every connection of the run must have negotiated.
const expected = "TLS 1.3, X25519, TLS_AES_128_GCM_SHA256"

func (o *origin) note(st tls.ConnectionState) {
	o.mu.Lock()
	o.tls[negotiated(st)]++
	if st.DidResume {
		o.tls["resumed"]++
	}
	o.mu.Unlock()
}

// took returns what was negotiated since the last call.
func (o *origin) took() map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	got := o.tls
	o.tls = map[string]int{}
	return got
}

// head of an answer, as long as those of real services.
func answerHead(framing string) []byte {
	return []byte("HTTP/1.1 200 OK\r\nDate: " + time.Now().UTC().Format(http.TimeFormat) + "\r\n" +
		"Content-Type: application/json\r\nServer: bench\r\nX-Request-Id: req_011CTzG5mQ8bCq4cYbWb5JQk\r\n" +
		"Cache-Control: no-store\r\n" + framing + "\r\n\r\n")
}

func contentLength(n int64) string { return "Content-Length: " + strconv.FormatInt(n, 10) }

// filler is n bytes that do not compress, the same in every run.
func filler(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

type originConn struct {
	c       net.Conn
	r       *bufio.Reader
	m       message
	answers map[int64][]byte
	closes  bool // after each answer
}

func (s *originConn) serve() error {
	for {
		if err := s.m.read(s.r); err != nil {
			return err
		}
		if _, err := s.m.discardBody(s.r, ignore); err != nil {
			return err
		}
		_, target, _ := strings.Cut(string(s.m.line), " ")
		target, _, _ = strings.Cut(target, " ")
		var err error
		if target == websocketPath {
			return s.websocket()
		}
		switch part := strings.Split(target, "/"); {
		case len(part) == 3 && part[1] == "r":
			err = s.bytes(part[2])
		case len(part) == 4 && part[1] == "sse":
			err = s.events(part[2], part[3])
		default:
			err = fmt.Errorf("the origin was asked for %q", target)
		}
		if err != nil {
			return err
		}
		if s.m.closes || s.closes {
			return nil
		}
	}
}

func (s *originConn) bytes(text string) error {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return err
	}
	if a := s.answers[n]; a != nil {
		_, err := s.c.Write(a)
		return err
	}
	piece := filler(bulkPiece)
	if _, err := s.c.Write(answerHead(contentLength(n))); err != nil {
		return err
	}
	for n > 0 && err == nil {
		var w int
		w, err = s.c.Write(piece[:min(n, bulkPiece)])
		n -= int64(w)
	}
	return err
}

// events streams as a model server does: a chunk for each event, flushed.
func (s *originConn) events(count, apart string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	us, err := strconv.Atoi(apart)
	if err != nil {
		return err
	}
	tick := time.NewTicker(time.Duration(us) * time.Microsecond)
	defer tick.Stop()
	out := append([]byte(nil), strings.Replace(string(answerHead("Transfer-Encoding: chunked")), "application/json", "text/event-stream", 1)...)
	for i := range n {
		if i > 0 {
			<-tick.C
		}
		event := fmt.Sprintf("data: %d %s\n\n", time.Now().UnixNano(), strings.Repeat("x", 160))
		out = fmt.Appendf(out, "%x\r\n%s\r\n", len(event), event)
		if _, err := s.c.Write(out); err != nil {
			return err
		}
		out = out[:0]
	}
	_, err = s.c.Write([]byte("0\r\n\r\n"))
	return err
}
