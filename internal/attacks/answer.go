package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// finalAnswer reads an answer as the client got it, strictly: its final status,
// whether it looks whole, and what in it can be read in two ways. clean says that
// the connection ended as an end should.
func finalAnswer(raw []byte, clean bool) (status int, whole bool, err error) {
	rest := string(raw)
	for interim := 0; ; interim++ {
		head, after, ok := strings.Cut(rest, "\r\n\r\n")
		if !ok {
			if strings.ContainsAny(strings.ReplaceAll(rest, "\r\n", ""), "\n\x00") {
				return 0, false, fmt.Errorf("a head with %.60q", rest)
			}
			return 0, false, errShort
		}
		status, lengths, chunked, err := answerHead(head)
		if err != nil {
			return 0, false, err
		}
		if interim > 10 {
			return status, true, errors.New("interim answers without end")
		}
		if status >= 100 && status < 200 && status != 101 {
			rest = after
			continue
		}
		if status == 101 {
			return status, true, errors.New("a 101 that it did not ask for or that is none")
		}
		if !chunked && len(lengths) == 0 && !clean {
			return status, false, nil
		}
		return answerBody(status, lengths, chunked, after)
	}
}

func answerHead(head string) (status int, lengths []string, chunked bool, err error) {
	lines := strings.Split(head, "\r\n")
	m := regexp.MustCompile(`^HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?$`).FindStringSubmatch(lines[0])
	if m == nil {
		return 0, nil, false, fmt.Errorf("the status line %.60q", lines[0])
	}
	status, _ = strconv.Atoi(m[1])
	strict := newStrictReader()
	fields, err := strict.fields(lines[1:])
	if err != nil {
		return status, nil, false, err
	}
	r := request{fields: fields}
	lengths = r.get("content-length")
	codings := r.get("transfer-encoding")
	switch {
	case len(lengths) > 1 || len(codings) > 1 || len(lengths) > 0 && len(codings) > 0:
		return status, nil, false, errors.New("an answer with two framings")
	case len(lengths) > 0 && !strict.length.MatchString(lengths[0]):
		return status, nil, false, fmt.Errorf("the length %q", lengths[0])
	case len(codings) > 0 && !strings.EqualFold(codings[0], "chunked"):
		return status, nil, false, fmt.Errorf("the coding %q", codings[0])
	}
	return status, lengths, len(codings) > 0, nil
}

// answerBody reports whether the body is all there and nothing stands behind it.
func answerBody(status int, lengths []string, chunked bool, rest string) (int, bool, error) {
	switch {
	case chunked:
		var r request
		after, err := newStrictReader().chunks(&r, rest)
		if errors.Is(err, errShort) {
			return status, false, nil
		}
		if err == nil && after != "" && !strings.HasPrefix(after, "HTTP/1.1 ") {
			err = fmt.Errorf("bytes behind the answer: %.40q", after)
		}
		return status, err == nil || !errors.Is(err, errShort), err
	case len(lengths) > 0:
		n, _ := strconv.Atoi(lengths[0])
		if status == 204 || status == 304 {
			n = 0
		}
		if len(rest) < n {
			return status, false, nil
		}
		if after := rest[n:]; after != "" && !strings.HasPrefix(after, "HTTP/1.1 ") {
			return status, true, fmt.Errorf("bytes behind the answer: %.40q", after)
		}
		return status, true, nil
	default: // it ends with the connection
		return status, true, nil
	}
}
