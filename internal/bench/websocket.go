package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
)

// A WebSocket (RFC 6455) as the load and the origin speak it: binary messages
// of one frame, and an echo.

const (
	websocketConns = 16
	websocketPath  = "/ws"

	// The key and the answer to it of RFC 6455 section 1.3. A proxy that makes
	// a key of its own is caught by the answer.
	websocketKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	websocketAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// websocketEcho is messages of size bytes that the origin sends back, one after the
// other on each connection; the unit is the message, so an echo is two.
func websocketEcho(size int) measure {
	return func(ctx context.Context, l *lab, p *running) ([]float64, error) {
		message, echo := websocketFrame(filler(size), true), websocketFrame(filler(size), false)
		var works []work
		for range websocketConns {
			c, err := l.dialWebsocket(p)
			if err != nil {
				return nil, p.failed(err)
			}
			defer c.close()
			got := make([]byte, len(echo))
			works = append(works, func(stop *atomic.Bool, done *atomic.Int64) error {
				for !stop.Load() {
					if _, err := c.c.Write(message); err != nil {
						return err
					}
					if _, err := io.ReadFull(c.r, got); err != nil {
						return err
					}
					if !bytes.Equal(got, echo) {
						return fmt.Errorf("the echo begins with %x, want %x", got[:4], echo[:4])
					}
					done.Add(2)
				}
				return nil
			})
		}
		v, err := l.steady(ctx, p, works)
		return []float64{v}, err
	}
}

// dialWebsocket opens a connection through p and upgrades it.
func (l *lab) dialWebsocket(p *running) (*client, error) {
	c, err := l.dial(p, ordinary, "http/1.1")
	if err != nil {
		return nil, err
	}
	_, err = io.WriteString(c.c, "GET "+websocketPath+" HTTP/1.1\r\nHost: "+l.authority(ordinary)+"\r\nUser-Agent: bench/1\r\n"+
		"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+websocketKey+"\r\n\r\n")
	if err == nil {
		var resp *http.Response
		if resp, err = http.ReadResponse(c.r, nil); err == nil && (resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != websocketAccept) {
			err = fmt.Errorf("the opening handshake was answered with %s", resp.Status)
		}
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// websocketFrame is a binary message of less than 64 KiB in one frame. What
// clients send is masked; the mask is the same in every run.
func websocketFrame(payload []byte, masked bool) []byte {
	out := []byte{0x82, byte(len(payload))}
	if len(payload) > 125 {
		out = binary.BigEndian.AppendUint16([]byte{0x82, 126}, uint16(len(payload)))
	}
	if !masked {
		return append(out, payload...)
	}
	out[1] |= 0x80
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	out = append(out, mask[:]...)
	for i, b := range payload {
		out = append(out, b^mask[i%4])
	}
	return out
}

// websocket answers the opening handshake and sends back what comes, until the client
// ends the connection.
func (s *originConn) websocket() error {
	_, err := io.WriteString(s.c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+websocketAccept+"\r\n\r\n")
	if err != nil {
		return err
	}
	var payload, out []byte
	for {
		var head [8]byte // flags, length 126, 16 bits of length, mask: what the load sends
		if _, err := io.ReadFull(s.r, head[:]); err != nil {
			return nil // the client ends it as it likes
		}
		if head[1] != 0x80|126 {
			return nil // a proxy's close frame
		}
		n := int(binary.BigEndian.Uint16(head[2:]))
		if cap(payload) < n {
			payload = make([]byte, n)
		}
		payload = payload[:n]
		if _, err := io.ReadFull(s.r, payload); err != nil {
			return nil
		}
		for i := range payload {
			payload[i] ^= head[4+i%4]
		}
		out = append(append(out[:0], 0x82, 126, head[2], head[3]), payload...)
		if _, err := s.c.Write(out); err != nil {
			return nil
		}
	}
}
