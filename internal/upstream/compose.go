package upstream

import (
	"io"
	"net/http"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
)

// compose fills c.out with the head, and the body if it is small. It reports
// whether all of the request is in it.
func (c *conn) compose(req *canon.Request, o *SendOptions, composed []byte) (inline bool, err error) {
	none := o.Body == nil || req.Framing == http1.NoBody
	if none && (req.Framing == http1.Chunked || req.Framing == http1.Length && req.Length > 0) {
		return false, fail(ReasonUnsendable, http.StatusInternalServerError, "the request declares a body and has none", nil)
	}
	inline = none || inlined(req)
	if composed != nil {
		c.out = append(c.out[:0], composed...)
		return inline, nil
	}
	c.writeHead(req, none)
	if none || !inline {
		return inline, nil
	}
	start := len(c.out)
	c.waitFor(o.Body)
	defer c.waitFor(nil)
	for {
		if c.ctx.Err() != nil { // from here on, canceled aborts the body
			return false, gateway(ReasonCanceled, c.ctx.Err())
		}
		p, err := o.Body.Next()
		c.out = append(c.out, p...)
		if got := int64(len(c.out) - start); got > req.Length || err == io.EOF && got < req.Length {
			return false, fail(ReasonRequestAborted, http.StatusBadRequest, "the body is not as long as declared", nil)
		}
		if err == io.EOF {
			return true, nil
		}
		if err != nil && c.ctx.Err() == nil {
			return false, bodyError(err)
		}
	}
}

// waitFor says which body compose waits for, so that canceled can abort it.
func (c *conn) waitFor(b Body) {
	c.mu.Lock()
	c.reading = b
	c.mu.Unlock()
}

// inlined reports that req's body, if it has one, goes out with its head.
func inlined(req *canon.Request) bool {
	return req.Framing == http1.Length && req.Length <= inlineBody && !req.ExpectContinue
}

// writeHead writes the request as it was judged. What is hop by hop is ours;
// such a field among req.Fields would be a second reading and is left out.
func (c *conn) writeHead(req *canon.Request, noBody bool) {
	c.target = req.Target(c.target[:0])
	w := http1.AppendRequestLine(c.out[:0], c.method, c.target)
	w = append(w, "Host: "...)
	w = req.HostHeader(w)
	w = append(w, "\r\n"...)
	for i := range req.Fields {
		f := &req.Fields[i]
		if http1.HopByHop(f.Name) || http1.EqualFold(f.Name, "expect") {
			continue
		}
		w = http1.AppendField(w, f.Name, f.Value)
	}
	if req.ExpectContinue && !noBody {
		w = append(w, "Expect: 100-continue\r\n"...)
	}
	switch req.Framing {
	case http1.Length:
		w = http1.AppendContentLength(w, req.Length)
	case http1.Chunked:
		w = append(w, "Transfer-Encoding: chunked\r\n"...)
	}
	switch {
	case req.Upgrade == canon.WebSocket:
		w = append(w, "Connection: Upgrade\r\nUpgrade: websocket\r\n"...)
	case req.TETrailers:
		w = append(w, "TE: trailers\r\nConnection: TE\r\n"...)
	}
	c.out = append(w, "\r\n"...)
}
