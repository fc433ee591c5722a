package ship

import (
	"bytes"
	"compress/gzip"
	"context"
	"net/http"
	"strconv"
)

// gzipFrom is how large a body is compressed.
const gzipFrom = 4 << 10 // 4 KiB

// webhook posts batches. Owned by its sink's goroutine.
type webhook struct {
	target  *Target
	client  *http.Client
	headers http.Header
	zip     *gzip.Writer
	buf     bytes.Buffer
}

func (w *webhook) deliver(ctx context.Context, b *batch) error {
	body, encoding := b.lines, ""
	if len(body) >= gzipFrom {
		body, encoding = w.compress(body), "gzip"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.target.url.String(), bytes.NewReader(body))
	if err != nil {
		return bare(err)
	}
	req.Header = w.headers.Clone()
	req.Header.Set("Content-Type", "application/x-ndjson")
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	req.Header.Set("X-Aegrail-First-Seq", strconv.FormatUint(b.first, 10))
	req.Header.Set("X-Aegrail-Last-Seq", strconv.FormatUint(b.last, 10))
	return w.target.post(ctx, w.client, req)
}

func (w *webhook) compress(b []byte) []byte {
	w.buf.Reset()
	if w.zip == nil {
		w.zip, _ = gzip.NewWriterLevel(&w.buf, gzip.BestSpeed) // agents wait for the same processor; the level is a right one
	} else {
		w.zip.Reset(&w.buf)
	}
	_, _ = w.zip.Write(b) // a bytes.Buffer takes everything
	_ = w.zip.Close()
	return w.buf.Bytes()
}
