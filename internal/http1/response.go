package http1

// ResponseHead is a response up to its empty line. It is reused between
// responses; its slices alias the Reader.
type ResponseHead struct {
	Status  int     // 100 to 599
	Reason  []byte  // for the log only: never forwarded
	Minor   uint8   // HTTP/1.Minor: 0 or 1
	Fields  []Field // all of them, in order, hop-by-hop ones too
	Framing Framing

	// Length is the Content-Length: of the body, or with NoBody after HEAD or 304
	// what it would be. -1 if there is none, or it says nothing (1xx, 204, a 2xx
	// to CONNECT).
	Length int64

	// KeepAlive is false when the server closes, when the close ends the body,
	// and when the connection no longer speaks HTTP or cannot be trusted to (101,
	// a tunnel, a 204 that announces bytes).
	KeepAlive bool
	Upgrade   []byte // value of Upgrade if Connection names it on HTTP/1.1, else nil
	Size      int    // bytes of the head on the wire
}

// Reset empties h, keeping its memory. Between responses it lets go of the page
// that h aliases, which may have been given back.
func (h *ResponseHead) Reset() {
	clear(h.Fields[:cap(h.Fields)])
	*h = ResponseHead{Fields: h.Fields[:0]}
}

// ReadResponse reads the next response head into h: the answer to a request of
// method reqMethod, which decides whether a body follows. A 1xx is a head of its
// own without a body, after which it is called again; how many to take, and
// whether a 101 was asked for, is the caller's to say. Errors are as for
// [Reader.ReadRequest].
func (r *Reader) ReadResponse(h *ResponseHead, reqMethod []byte) error {
	*h = ResponseHead{Fields: h.Fields[:0]}
	r.response = true
	head, first, err := r.readHead()
	if err != nil {
		return err
	}
	status, reason, minor, bad := parseStatusLine(head[:first-2])
	if bad != nil {
		return r.refuse(bad)
	}
	var m message
	fields, bad := m.parseFields(h.Fields[:0], head[first:])
	if bad == nil {
		bad = m.checkResponse(minor, status)
	}
	if bad != nil {
		return r.refuse(bad)
	}
	*h = ResponseHead{
		Status: status, Reason: reason, Minor: minor,
		Fields:    fields,
		KeepAlive: !m.close && (minor == 1 || m.keepAlive),
		Size:      len(head),
	}
	if minor == 1 && m.upgradeOption {
		h.Upgrade = m.upgrade
	}
	h.frame(&m, reqMethod)
	r.endHead(len(head), h.Framing, h.Length)
	return nil
}

// frame applies RFC 9112 section 6.3 in its order.
func (h *ResponseHead) frame(m *message, reqMethod []byte) {
	h.Framing, h.Length = NoBody, -1
	if m.lengths > 0 {
		h.Length = m.length
	}
	tunnel := string(reqMethod) == "CONNECT" && h.Status/100 == 2
	switch {
	case h.Status/100 == 1 || h.Status == 204 || tunnel:
		if h.Status == 101 || tunnel || h.Length > 0 {
			h.KeepAlive = false
		}
		h.Length = -1
	case h.Status == 304 || string(reqMethod) == "HEAD":
	case m.codings > 0:
		h.Framing = Chunked
	case m.lengths > 0:
		h.Framing = Length
	default:
		h.Framing = UntilClose
		h.KeepAlive = false
	}
}

func (m *message) checkResponse(minor uint8, status int) *fault {
	if bad := m.checkFraming(minor); bad != nil {
		return bad
	}
	interim := status/100 == 1
	switch {
	case m.codings > 0 && (interim || status == 204):
		return faultf(ReasonResponse, 502, "Transfer-Encoding on a %d", status)
	case interim && minor == 0:
		return faultf(ReasonResponse, 502, "a %d on HTTP/1.0", status)
	case status == 101:
		return m.checkUpgrade()
	}
	return nil
}

// parseStatusLine splits a status line, which comes without its CRLF. The space
// after the status may be missing if no reason follows: many servers send none,
// and nothing can be read into it.
func parseStatusLine(line []byte) (status int, reason []byte, minor uint8, bad *fault) {
	const upToStatus = len("HTTP/1.1 200")
	if len(line) < upToStatus || line[8] != ' ' {
		return 0, nil, 0, faultf(ReasonResponse, 502, "no status line")
	}
	minor, ok := parseVersion(line[:8])
	if !ok {
		return 0, nil, 0, faultf(ReasonResponse, 502, "version %s is not HTTP/1.0 or HTTP/1.1", quoted(line[:8]))
	}
	for _, c := range line[9:upToStatus] {
		if c -= '0'; c > 9 {
			return 0, nil, 0, faultf(ReasonResponse, 502, "status %s is not three digits", quoted(line[9:upToStatus]))
		}
		status = status*10 + int(c)
	}
	if status < 100 || status > 599 {
		return 0, nil, 0, faultf(ReasonResponse, 502, "status %d is not from 100 to 599", status)
	}
	reason = line[upToStatus:]
	if len(reason) > 0 {
		if reason[0] != ' ' {
			return 0, nil, 0, faultf(ReasonResponse, 502, "the status is not followed by a space")
		}
		reason = reason[1:len(reason):len(reason)]
	}
	if i := indexControl(reason); i >= 0 {
		return 0, nil, 0, faultf(ReasonResponse, 502, "byte 0x%02x at offset %d of the reason", reason[i], i)
	}
	return status, reason, minor, nil
}
