package upstream

const (
	smallBuf   = 4 << 10 // what is read into where there is no room for more
	headCopies = 2       // a head is held by net/http, and as Response has it
)

// takeBuf takes what the body is read into.
func (s *stream) takeBuf() {
	if s.pages == nil || s.pages.Take(corkSize) {
		s.buf = s.client.bufs.Get().(*[]byte)
		return
	}
	small := make([]byte, smallBuf)
	s.buf = &small
}

// takeHead takes the room of a head that is not small.
func (s *stream) takeHead() bool {
	n := 0
	for name, values := range s.resp.Header {
		for _, v := range values {
			n += len(name) + len(v)
		}
	}
	if s.heads == nil || n <= smallBuf {
		return true
	}
	if !s.heads.Take(headCopies * n) {
		return false
	}
	s.head = headCopies * n
	return true
}

// giveBack ends what the stream holds.
func (s *stream) giveBack() {
	if s.head > 0 {
		s.heads.Give(s.head)
		s.head = 0
	}
	if s.buf == nil {
		return
	}
	if len(*s.buf) == corkSize {
		s.client.bufs.Put(s.buf)
		if s.pages != nil {
			s.pages.Give(corkSize)
		}
	}
	s.buf = nil
}
