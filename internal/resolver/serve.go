package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// maxQuery bounds a query. A question is 272 bytes at most, with room for
	// EDNS options; what is longer is cut over UDP, so malformed, and ends the
	// connection over TCP.
	maxQuery = 4096

	// workers is how many queries over UDP are answered at a time. An answer
	// takes microseconds but for the record of a refusal.
	workers = 4

	maxConns    = 64               // connections over TCP; more are closed at once
	maxPerConn  = 256              // queries of one
	connTimeout = 10 * time.Second // for each query to come whole, and for its answer to be taken
)

// ServePacket answers queries over UDP until ctx is done or conn fails. It
// closes conn. conn must be bound to one address, since an answer has to come
// from the address that was asked.
func (r *Resolver) ServePacket(ctx context.Context, conn *net.UDPConn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }()
	failed := make(chan error, workers)
	var serving sync.WaitGroup
	for range workers {
		serving.Go(func() {
			failed <- r.answerPackets(conn)
			_ = conn.Close() // one that fails ends the others
		})
	}
	serving.Wait()
	err := <-failed // the first
	if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("answering DNS on %s: %w", conn.LocalAddr(), err)
}

func (r *Resolver) answerPackets(conn *net.UDPConn) error {
	buf := make([]byte, maxQuery)
	for {
		n, client, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
		if answer := r.Answer(buf[:n], client); answer != nil {
			_, _ = conn.WriteToUDPAddrPort(answer, client) // who does not get it asks again
		}
	}
}

// ServeStream answers queries over TCP (RFC 7766) until ctx is done or ln
// fails. It closes ln and what it has accepted.
func (r *Resolver) ServeStream(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	defer ln.Close()
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	slots := make(chan struct{}, maxConns)
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			var ne net.Error
			//lint:ignore SA1019 Accept's EMFILE and ECONNABORTED have no other name in package net.
			if errors.As(err, &ne) && ne.Temporary() { //nolint:staticcheck // see above
				select {
				case <-time.After(connTimeout / 100):
					continue
				case <-ctx.Done():
					return nil
				}
			}
			return fmt.Errorf("accepting DNS on %s: %w", ln.Addr(), err)
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		serving.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			r.answerStream(conn)
		})
	}
}

// answerStream answers one query after the other. Each has its length before
// it (RFC 1035 section 4.2.2).
func (r *Resolver) answerStream(conn net.Conn) {
	client := netip.AddrPort{}
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		client = netip.AddrPortFrom(tcp.AddrPort().Addr().Unmap(), tcp.AddrPort().Port())
	}
	buf := make([]byte, maxQuery)
	for range maxPerConn {
		_ = conn.SetDeadline(time.Now().Add(connTimeout))
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(length[:]))
		if n > maxQuery {
			_ = r.refuse(refusal{client: client, reason: ReasonQuery, detail: "longer than 4096 bytes"})
			return
		}
		if _, err := io.ReadFull(conn, buf[:n]); err != nil {
			return
		}
		answer := r.Answer(buf[:n], client)
		if answer == nil {
			return
		}
		out := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(answer)), uint16(len(answer)))
		if _, err := conn.Write(append(out, answer...)); err != nil {
			return
		}
	}
}
