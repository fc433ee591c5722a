package main

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"strings"
)

const isJSON = "Content-Type: application/json"

// bodyRows are B1 to B7: bodies that a rule reads. It allows {"model":"good"}.
func bodyRows() []row {
	var rows []row
	add := func(id, what, body string, fields ...string) {
		if fields == nil {
			fields = []string{isJSON}
		}
		rows = append(rows, row{id: id, what: what, class: judged, in: post(body, fields...) + smuggled, want: nothing, need: needBody})
	}
	for what, body := range map[string]string{
		"a key twice": `{"model":"evil","model":"good"}`, "a key twice, the other way": `{"model":"good","model":"evil"}`, "a key twice by case folding": `{"MODEL":"evil","model":"good"}`,
		"a key twice by an escape": `{"mode\u006c":"evil","model":"good"}`, "a key twice, deep": `{"model":"good","x":[{"a":1,"a":2}]}`, "a byte order mark": "\xef\xbb\xbf" + goodJSON,
		"UTF-16": "{\x00\"\x00m\x00\"\x00:\x001\x00}\x00", "invalid UTF-8": "{\"model\":\"good\",\"x\":\"\xff\"}", "a lone surrogate": `{"model":"good","x":"\ud800"}`, "NaN": `{"model":"good","x":NaN}`,
		"a number beyond a double": `{"model":"good","x":1e999}`, "a depth of 65": `{"model":"good","x":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`, "trailing data": goodJSON + `{"model":"evil"}`,
		"a trailing comma": `{"model":"good",}`, "a comment": `{"model":"good"/**/}`, "another model": `{"model":"evil"}`,
	} {
		add("B1", what, body)
	}
	add("B2", "text", goodJSON, "Content-Type: text/plain")
	add("B2", "no kind", goodJSON, "X-None: 1")
	add("B2", "two kinds in one", goodJSON, "Content-Type: application/json, text/plain")
	add("B2", "two kinds", goodJSON, isJSON, "Content-Type: text/plain")
	add("B2", "another charset", goodJSON, "Content-Type: application/json; charset=utf-16")
	add("B2", "two charsets", goodJSON, "Content-Type: application/json; charset=utf-8; charset=utf-7")
	add("B3", "an unknown encoding", goodJSON, isJSON, "Content-Encoding: cow")
	add("B3", "what is said to be gzip and is none", goodJSON, isJSON, "Content-Encoding: gzip")
	add("B3", "gzip twice", gzipped(gzipped(goodJSON)), isJSON, "Content-Encoding: gzip, gzip")
	add("B3", "two members of gzip", gzipped(goodJSON, `{"model":"evil"}`), isJSON, "Content-Encoding: gzip")
	add("B3", "data behind gzip", gzipped(goodJSON)+"x", isJSON, "Content-Encoding: gzip")
	add("B3", "gzip of another model", gzipped(`{"model":"evil"}`), isJSON, "Content-Encoding: gzip")
	add("B3", "deflate of another model", deflated(`{"model":"evil"}`), isJSON, "Content-Encoding: deflate")
	add("B4", "more than the rule takes", `{"model":"good","x":"`+strings.Repeat("y", 64<<10)+`"}`)
	add("B6", "a form", "model=good", "Content-Type: application/x-www-form-urlencoded")
	add("B6", "a form with parts", "--x\r\nContent-Disposition: form-data; name=model\r\n\r\ngood\r\n--x--\r\n", "Content-Type: multipart/form-data; boundary=x")
	rows = append(rows,
		row{id: "B5", what: "a denied head that waits", class: judged, in: asking("DELETE "+chatPath, "Expect: 100-continue", "Content-Length: 16") + goodJSON + smuggled, want: nothing, need: needBody},
		row{id: "B5", what: "an allowed head that waits, and a body that is denied", class: judged, in: post(`{"model":"evil"}`, isJSON, "Expect: 100-continue") + smuggled, want: nothing, need: needBody},
		row{id: "B7", what: "what was judged is forwarded", class: judged, in: post(goodJSON, isJSON), want: exactly, may: []string{chatLine}, need: needBody},
		row{id: "B7", what: "what was judged is forwarded, in chunks", class: judged, in: chunked("8\r\n{\"model\"\r\n8\r\n:\"good\"}\r\n0\r\n\r\n", isJSON), want: exactly, may: []string{chatLine}, need: needBody},
	)
	return rows
}

func gzipped(parts ...string) string {
	var b bytes.Buffer
	for _, p := range parts {
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte(p)) // a buffer takes all
		_ = w.Close()
	}
	return b.String()
}

func deflated(p string) string {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, _ = w.Write([]byte(p)) // a buffer takes all
	_ = w.Close()
	return b.String()
}
