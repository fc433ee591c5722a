package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
)

func TestMessagesAreReadToTheirEnd(t *testing.T) {
	for _, c := range []struct {
		name, text string
		body       int64
		closes     bool
	}{
		{"no body", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, false},
		{"a length in any case", "HTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\n\r\nhello", 5, false},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", 6, false},
		{"chunks with trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n", 1, false},
		{"the end of a connection", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 0, true},
	} {
		r := bufio.NewReader(strings.NewReader(c.text + "next"))
		var m message
		var seen int64
		if err := m.read(r); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		n, err := m.discardBody(r, func(n int) { seen += int64(n) })
		rest, _ := r.Peek(4)
		if err != nil || n != c.body || seen != c.body || m.closes != c.closes || string(rest) != "next" {
			t.Errorf("%s: %d bytes, %d seen, closes %v, then %q, %v", c.name, n, seen, m.closes, rest, err)
		}
	}
}

func TestACutBodyIsAnError(t *testing.T) {
	r := bufio.NewReader(strings.NewReader("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"))
	var m message
	if err := m.read(r); err != nil {
		t.Fatal(err)
	}
	if _, err := m.discardBody(r, ignore); err == nil {
		t.Error("five bytes of nine were taken for a body")
	}
}

func TestAPassThatFailedDoesNotCount(t *testing.T) {
	nan := math.NaN()
	if got := median([]float64{3, nan, 1, 2}); got != 2 {
		t.Errorf("median: %v, want 2", got)
	}
	if got := median([]float64{nan}); !math.IsNaN(got) {
		t.Errorf("median of nothing: %v", got)
	}
	if got := spread([]float64{9, 10, 11, nan}); got != 0.2 {
		t.Errorf("spread: %v, want 0.2", got)
	}
}

func TestAddedIsLessTheSamePassesDirect(t *testing.T) {
	w := row{name: "r", added: true}
	res := newResults()
	for _, pass := range []struct{ direct, proxy float64 }{{1, 1.5}, {2, 2.25}} {
		res.add(w, direct.name, []float64{pass.direct}, nil)
		res.add(w, "p", []float64{pass.proxy}, nil)
	}
	got := res.series(w, "p", 0)
	if len(got) != 2 || got[0] != 0.5 || got[1] != 0.25 {
		t.Errorf("added: %v, want 0.5 and 0.25", got)
	}
}

func TestTheOriginSendsMessagesBack(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	ended := make(chan error, 1)
	go func() {
		s := originConn{c: theirs, r: bufio.NewReader(theirs)}
		ended <- s.websocket()
	}()
	r := bufio.NewReader(ours)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != websocketAccept {
		t.Fatalf("the opening handshake: %v, %v", resp, err)
	}
	for _, size := range []int{small, 126, 60_000} {
		payload := filler(size)
		message, want := websocketFrame(payload, true), websocketFrame(payload, false)
		if bytes.Contains(message, payload) {
			t.Errorf("%d bytes are not masked", size)
		}
		if _, err := ours.Write(message); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back as others, %v", size, err)
		}
	}
	_ = ours.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestTheLogsShareIsOfTheExchangeWithoutIt(t *testing.T) {
	f := logFigures{file: 70, null: 64, record: 2}
	if got := f.share(); got != "17%" { // 10 of 60
		t.Errorf("share: %s, want 17%%", got)
	}
	f.null = math.NaN()
	if got := f.share(); got != "–" {
		t.Errorf("share of what was not measured: %s", got)
	}
}

func TestATargetIsHeldAgainstTheBestPeer(t *testing.T) {
	l := &lab{peers: []peer{{name: "slow"}, {name: "fast"}, {name: engineName, ours: true}, {name: "another build", ours: true}}}
	w := row{name: "r"}
	res := newResults()
	for _, pass := range [][4]float64{{8, 4, 3, 1}, {10, 5, 4, 1}, {6, 3, 2, 1}} {
		for i, p := range l.peers {
			res.add(w, p.name, []float64{pass[i]}, nil)
		}
	}
	for _, c := range []struct {
		of   target
		want string
	}{
		{target{ratio: 0.75}, "0.75 of fast: met, 0.75"},
		{target{ratio: 0.7}, "0.70 of fast: **missed**, 0.75"},
		{target{ratio: 0.4, peer: "slow"}, "0.40 of slow: met, 0.38"},
		{target{ratio: 0.4, peer: "absent"}, ""},
		{target{most: 30}, "30: met"},
		{target{most: 20}, "20: **missed**"},
		{target{}, ""},
	} {
		if got := l.verdict(res, w, 0, figure{scale: 10, target: c.of}); got != c.want {
			t.Errorf("%+v: %q, want %q", c.of, got, c.want)
		}
	}
}

func TestTheShortTableGoesBetweenItsMarks(t *testing.T) {
	const before, after = "# Cost\n\n" + shortBegin, shortEnd + "\nmore\n"
	got, err := insertShort(before+"old\n"+after, "new\n")
	if err != nil || got != before+"new\n"+after {
		t.Errorf("%q, %v", got, err)
	}
	for _, text := range []string{"", before, after} {
		if got, err := insertShort(text, "new\n"); err == nil {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func TestGrowthIsOfTheFirstStep(t *testing.T) {
	var out strings.Builder
	growthTable(&out, []growth{
		{what: "rules", why: "x", steps: []step{{label: "10", values: []float64{1e-5, 2e-5}}, {label: "20", values: []float64{1e-5, 2e-5}}}},
		{what: "hosts", why: "more of them", steps: []step{{label: "1", values: []float64{1e-5}}, {label: "2", values: []float64{2e-5}}}},
	})
	for _, want := range []string{"| rules |  | 10: 15.0, 20: 15.0 (1.00) | flat |", "| hosts |  | 1: 10.0, 2: 20.0 (2.00) | more of them |"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %s", want, out.String())
		}
	}
	if got := grouped(1234567) + grouped(100) + grouped(1000); got != "1 234 5671001 000" {
		t.Errorf("grouped: %q", got)
	}
}

func TestTheOriginClosesWhereItIsToldTo(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	ended := make(chan error, 1)
	go func() {
		s := originConn{c: theirs, r: bufio.NewReader(theirs), closes: true}
		ended <- errors.Join(s.serve(), theirs.Close())
	}()
	if _, err := io.WriteString(ours, "GET /r/2 HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(ours); err != nil || !bytes.HasPrefix(got, []byte("HTTP/1.1 200")) {
		t.Errorf("%q, %v", got, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestTheCPUClockRunsWithWork(t *testing.T) {
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		_ = filler(small)
	}
	after, err := cpuTime(os.Getpid())
	if err != nil || after <= before {
		t.Errorf("work took the clock from %v to %v, %v", before, after, err)
	}
	if _, err := cpuTime(1 << 22); err == nil { // above the largest pid
		t.Error("a process that is not there has a clock")
	}
}
