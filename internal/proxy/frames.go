package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// frames checks one direction of a WebSocket (RFC 6455 section 5.2) as its
// bytes pass, whatever pieces they come in. It keeps no payload.
type frames struct {
	masked  bool  // what this direction must be
	deflate bool  // permessage-deflate was agreed on: RSV1 may be set (RFC 7692)
	limit   int64 // largest frame

	head    [14]byte
	have    int   // bytes of head
	need    int   // length of the head as far as it is known
	left    int64 // payload still to come
	message bool  // inside a fragmented message
	closed  bool  // a close frame has passed: nothing may follow
}

const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA

	maxControl = 125 // RFC 6455 section 5.5
)

// check walks p. An error means that p must not be passed on.
func (f *frames) check(p []byte) error {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, int64(len(p)))
			f.left -= n
			p = p[n:]
			continue
		}
		if f.closed {
			return errors.New("bytes after a close frame")
		}
		if f.have == 0 {
			f.need = 2
		}
		n := copy(f.head[f.have:f.need], p)
		f.have += n
		p = p[n:]
		if f.have < f.need {
			return nil
		}
		if f.need == 2 {
			if err := f.first(); err != nil {
				return err
			}
			if f.have < f.need {
				continue
			}
		}
		if err := f.whole(); err != nil {
			return err
		}
	}
	return nil
}

// first judges the two bytes that every frame begins with and learns how long
// its head is.
func (f *frames) first() error {
	fin, rsv, op := f.head[0]&0x80 != 0, f.head[0]&0x70, f.head[0]&0x0f
	control := op&0x8 != 0
	switch {
	case rsv&0x30 != 0, rsv != 0 && (!f.deflate || control || op == opContinuation):
		return fmt.Errorf("reserved bits %#x", rsv)
	case op > opBinary && op < opClose, op > opPong:
		return fmt.Errorf("reserved opcode %#x", op)
	case control && !fin:
		return errors.New("a fragmented control frame")
	case op == opContinuation && !f.message:
		return errors.New("a continuation of nothing")
	case (op == opText || op == opBinary) && f.message:
		return errors.New("a new message inside a fragmented one")
	case (f.head[1]&0x80 != 0) != f.masked:
		return fmt.Errorf("masked=%t where %t is required", !f.masked, f.masked)
	}
	length := f.head[1] & 0x7f
	if control && length > maxControl {
		return errors.New("a control frame of more than 125 bytes")
	}
	switch length {
	case 126:
		f.need = 4
	case 127:
		f.need = 10
	}
	if f.masked {
		f.need += 4
	}
	if !control {
		f.message = !fin
	}
	return nil
}

// whole takes the length from a head that is complete.
func (f *frames) whole() error {
	var length uint64
	switch short := f.head[1] & 0x7f; short {
	case 126:
		if length = uint64(binary.BigEndian.Uint16(f.head[2:])); length < 126 {
			return errors.New("a length that is not the shortest form")
		}
	case 127:
		if length = binary.BigEndian.Uint64(f.head[2:]); length < 1<<16 {
			return errors.New("a length that is not the shortest form")
		}
	default:
		length = uint64(short)
	}
	if length > uint64(f.limit) {
		return fmt.Errorf("a frame of %d bytes, more than %d", length, f.limit)
	}
	f.closed = f.head[0]&0x0f == opClose
	f.left = int64(length)
	f.have, f.need = 0, 2
	return nil
}
