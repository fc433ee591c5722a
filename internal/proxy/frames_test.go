package proxy

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// frame builds one frame. length forces a longer form than needed: 126 or 127.
func frame(head byte, masked bool, payload string, form byte) []byte {
	var mask byte
	if masked {
		mask = 0x80
	}
	b := []byte{head}
	switch n := len(payload); {
	case form == 126 || form == 0 && n >= 126 && n < 1<<16:
		b = append(b, mask|126)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	case form == 127 || n >= 1<<16:
		b = append(b, mask|127)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	default:
		b = append(b, mask|byte(n))
	}
	if masked {
		b = append(b, 1, 2, 3, 4)
	}
	return append(b, payload...)
}

const fin = 0x80

func TestU04FramesThatPass(t *testing.T) {
	for name, c := range map[string]struct {
		frames  frames
		payload []byte
	}{
		"a text from a client":    {frames{masked: true}, frame(fin|opText, true, "hello", 0)},
		"a binary from a server":  {frames{}, frame(fin|opBinary, false, strings.Repeat("x", 300), 0)},
		"a large one":             {frames{}, frame(fin|opBinary, false, strings.Repeat("x", 70000), 0)},
		"a ping":                  {frames{}, frame(fin|opPing, false, "p", 0)},
		"fragments with a ping":   {frames{}, bytes.Join([][]byte{frame(opText, false, "a", 0), frame(fin|opPing, false, "", 0), frame(fin|opContinuation, false, "b", 0)}, nil)},
		"a close":                 {frames{}, frame(fin|opClose, false, "\x03\xe8", 0)},
		"compressed, agreed on":   {frames{deflate: true}, frame(fin|0x40|opText, false, "zz", 0)},
		"empty, masked":           {frames{masked: true}, frame(fin|opText, true, "", 0)},
		"two at once, both whole": {frames{}, append(frame(fin|opText, false, "a", 0), frame(fin|opText, false, "b", 0)...)},
	} {
		t.Run(name, func(t *testing.T) {
			whole, single := c.frames, c.frames
			whole.limit, single.limit = 1<<20, 1<<20
			if err := whole.check(c.payload); err != nil {
				t.Fatal(err)
			}
			for i := range c.payload {
				if err := single.check(c.payload[i : i+1]); err != nil {
					t.Fatalf("byte %d on its own: %v", i, err)
				}
			}
			if whole.left != 0 || whole.have != 0 {
				t.Errorf("not at a frame's end: %+v", whole)
			}
		})
	}
}

func TestU04FramesThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		frames  frames
		payload []byte
		want    string
	}{
		"unmasked from a client":       {frames{masked: true}, frame(fin|opText, false, "x", 0), "masked"},
		"masked from a server":         {frames{}, frame(fin|opText, true, "x", 0), "masked"},
		"RSV1 without an extension":    {frames{}, frame(fin|0x40|opText, false, "x", 0), "reserved bits"},
		"RSV2":                         {frames{deflate: true}, frame(fin|0x20|opText, false, "x", 0), "reserved bits"},
		"RSV1 on a control frame":      {frames{deflate: true}, frame(fin|0x40|opPing, false, "x", 0), "reserved bits"},
		"opcode 3":                     {frames{}, frame(fin|0x3, false, "x", 0), "opcode"},
		"opcode 11":                    {frames{}, frame(fin|0xb, false, "x", 0), "opcode"},
		"a fragmented ping":            {frames{}, frame(opPing, false, "x", 0), "fragmented control"},
		"a ping of 126":                {frames{}, frame(fin|opPing, false, strings.Repeat("x", 126), 0), "more than 125"},
		"a continuation of nothing":    {frames{}, frame(fin|opContinuation, false, "x", 0), "continuation"},
		"a message inside another":     {frames{}, append(frame(opText, false, "x", 0), frame(fin|opText, false, "x", 0)...), "new message"},
		"a long form of a short one":   {frames{}, frame(fin|opText, false, "x", 126), "shortest"},
		"a longer form of a short one": {frames{}, frame(fin|opText, false, "x", 127), "shortest"},
		"larger than the cap":          {frames{limit: 10}, frame(fin|opText, false, "eleven byte", 0), "more than 10"},
		"U06 raw bytes":                {frames{masked: true}, []byte("DELETE /x HTTP/1.1\r\n"), ""},
		"bytes after a close":          {frames{}, append(frame(fin|opClose, false, "", 0), frame(fin|opText, false, "x", 0)...), "after a close"},
	} {
		t.Run(name, func(t *testing.T) {
			f := c.frames
			if f.limit == 0 {
				f.limit = 1 << 20
			}
			err := f.check(c.payload)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
