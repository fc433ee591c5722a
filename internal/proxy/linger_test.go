package proxy

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// lingered is how long lingerRead read a client, on the bubble's clock.
func lingered(t *testing.T, stall time.Duration, client func(io.WriteCloser)) (took time.Duration) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		theirs, ours := net.Pipe()
		done := make(chan struct{})
		go func() { defer close(done); client(theirs) }()
		began := time.Now()
		lingerRead(ours, ours.SetReadDeadline, stall, make([]byte, 4), time.Now)
		took = time.Since(began)
		ours.Close()
		theirs.Close()
		<-done
	})
	return took
}

func TestARefusedBodyIsReadToItsEndAndNoLonger(t *testing.T) {
	const stall = lingerStallH2
	write := func(w io.Writer, times int, pause time.Duration) {
		for range times {
			time.Sleep(pause) // the bubble's time
			_, _ = w.Write([]byte("more"))
		}
	}
	for what, row := range map[string]struct {
		client func(io.WriteCloser)
		want   time.Duration
	}{
		"it has ended":                  {func(w io.WriteCloser) { w.Close() }, 0},
		"all of it is on its way":       {func(w io.WriteCloser) { write(w, 1000, 0); w.Close() }, 0},
		"it ends after a while":         {func(w io.WriteCloser) { write(w, 4, stall/2); w.Close() }, 2 * stall},
		"the client stops without more": {func(w io.WriteCloser) { write(w, 4, stall/2) }, 3 * stall},
		"the client does not begin":     {func(io.WriteCloser) {}, stall},
		"it does not end":               {func(w io.WriteCloser) { write(w, int(4*lingerWait/stall), stall/2) }, lingerWait},
	} {
		if took := lingered(t, stall, row.client); took != row.want {
			t.Errorf("%s: read for %v, want %v", what, took, row.want)
		}
	}
}
