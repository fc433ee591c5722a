package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2conn is an HTTP/2 client that writes the frames that it is told to, well
// formed or not.
type h2conn struct {
	conn   net.Conn
	framer *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder
	next   uint32
	open   int  // streams that are not over
	gone   bool // the proxy has ended the connection
	said   []string
}

// newH2 sends the preface. An error is noticed where answers are read.
func newH2(conn net.Conn) *h2conn {
	h := &h2conn{conn: conn, framer: http2.NewFramer(conn, conn), next: 1}
	h.framer.AllowIllegalWrites = true
	h.enc = hpack.NewEncoder(&h.block)
	h.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = conn.SetDeadline(time.Now().Add(2 * patience))
	_, _ = conn.Write([]byte(http2.ClientPreface))
	_ = h.framer.WriteSettings()
	return h
}

// encode makes a header block of "name: value" lines in their order.
func (h *h2conn) encode(fields ...string) []byte {
	h.block.Reset()
	for _, f := range fields {
		i := strings.Index(f[1:], ": ") + 1
		_ = h.enc.WriteField(hpack.HeaderField{Name: f[:i], Value: f[i+2:]}) // a buffer takes all
	}
	return bytes.Clone(h.block.Bytes())
}

// request opens a stream with fields and body.
func (h *h2conn) request(c caseOf, r h2req) {
	fields := make([]string, len(r.fields))
	for i, f := range r.fields {
		fields[i] = c.expand(f)
	}
	id := h.next
	h.next += 2
	h.open++
	_ = h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.encode(fields...), EndStream: r.body == "", EndHeaders: true})
	if r.body != "" {
		_ = h.framer.WriteData(id, true, []byte(r.body))
	}
}

// drain reads until every stream is over, the connection is, or it is quiet,
// and returns the statuses in a form that finalAnswer reads.
func (h *h2conn) drain() []byte {
	for wait := patience; h.open > 0; wait = 2 * quiet {
		_ = h.conn.SetReadDeadline(time.Now().Add(wait))
		frame, err := h.framer.ReadFrame()
		if err != nil {
			var reset http2.StreamError
			if errors.As(err, &reset) {
				h.open--
				continue
			}
			h.gone = true
			break
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = h.framer.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			status, _ := strconv.Atoi(f.PseudoValue("status"))
			h.said = append(h.said, fmt.Sprintf("HTTP/1.1 %d \r\n\r\n", status))
			h.ended(f.StreamEnded())
		case *http2.DataFrame:
			h.ended(f.StreamEnded())
		case *http2.RSTStreamFrame:
			h.ended(true)
		case *http2.GoAwayFrame:
			h.gone = true
		}
	}
	return []byte(strings.Join(h.said, ""))
}

func (h *h2conn) ended(yes bool) {
	if yes {
		h.open--
	}
}
