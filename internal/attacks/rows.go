package main

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

const (
	chatPath = "/v1/chat/completions"
	chatLine = "POST " + chatPath
	goodJSON = `{"model":"good"}`

	// smuggled stands behind every request that must be refused. No rule allows
	// it: at the upstream it is through.
	smuggled = "DELETE " + adminPath + " HTTP/1.1\r\nHost: {host}\r\nX-Smuggled: 1\r\n\r\n"
)

// chat is the allowed request, with these lines in its head and no body.
func chat(lines ...string) string {
	return "POST " + chatPath + " HTTP/1.1\r\nHost: {host}\r\n" + strings.Join(append(lines, "", ""), "\r\n")
}

// post is the allowed request with a body of known length.
func post(body string, lines ...string) string {
	return chat(append(lines, length(body))...) + body
}

func length(body string) string { return "Content-Length: " + itoa(len(body)) }

// chunked is the allowed request with these bytes for chunks.
func chunked(chunks string, lines ...string) string {
	return chat(append(lines, "Transfer-Encoding: chunked")...) + chunks
}

// get is an allowed request for a file, with the rest of its path.
func get(rest string, lines ...string) string {
	return "GET /files/" + rest + " HTTP/1.1\r\nHost: {host}\r\n" + strings.Join(append(lines, "", ""), "\r\n")
}

// asking is a request line of our own with the right Host.
func asking(line string, lines ...string) string {
	return line + " HTTP/1.1\r\nHost: {host}\r\n" + strings.Join(append(lines, "", ""), "\r\n")
}

// deny is a row of which nothing may arrive. What must never be served stands
// behind it.
func deny(id, what, in string) row {
	return row{id: id, what: what, in: in + smuggled, want: nothing}
}

// cuts is a row whose head may arrive and whose end must not.
func cuts(id, what, in string) row {
	return row{id: id, what: what, in: in + smuggled, want: unfinished}
}

// allRows is the catalogue. Rows that no proxy but the engine could meet are
// here all the same: the table says why a proxy has none.
func allRows() []row {
	var all []row
	for _, part := range [][]row{
		framingRows(), fieldRows(), chunkRows(), bodyLengthRows(), answerRows(),
		pathRows(), targetRows(), queryRows(), bodyRows(),
		authorityRows(), spellingRows(), helloRows(), overrideRows(),
		addressRows(), upgradeRows(), upstreamTLSRows(), http2Rows(), exhaustionRows(),
	} {
		all = append(all, part...)
	}
	return all
}

func itoa(n int) string { return strconv.Itoa(n) }

// catalogue is allRows in the catalogue's order of letters and numbers, and by
// what each says: maps have no order.
func catalogue() []row {
	all := allRows()
	slices.SortStableFunc(all, func(a, b row) int {
		return cmp.Or(cmp.Compare(rank(a.id), rank(b.id)), strings.Compare(a.what, b.what))
	})
	return all
}

const letters = "SPBADUTHR"

func rank(id string) int {
	n, _ := strconv.Atoi(id[1:]) // ids are ours
	return strings.IndexByte(letters, id[0])*100 + n
}
