package audit

import "testing"

func TestEightBytesAtATimeAreReadAsOneByOne(t *testing.T) {
	for c := range 256 {
		for lane := range 8 {
			x := uint64(c)<<(8*lane) | 0x6161616161616161&^(0xff<<(8*lane))
			b := byte(c)
			if got, want := special(x) != 0, b < ' ' || b > '~' || b == '"' || b == '\\'; got != want {
				t.Fatalf("byte %#x in lane %d: special %v", c, lane, got)
			} else if want && special(x)&-special(x) != 0x80<<(8*lane) {
				t.Fatalf("byte %#x in lane %d: found at %#x", c, lane, special(x))
			}
			if got, want := lowerHex(x), b >= '0' && b <= '9' || b >= 'a' && b <= 'f'; got != want {
				t.Fatalf("byte %#x in lane %d: hex %v", c, lane, got)
			}
		}
	}
}
