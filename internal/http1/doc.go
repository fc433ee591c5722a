// Package http1 reads and writes HTTP/1.1 messages, strictly and without
// allocating. It is the only parser of HTTP/1 heads in the engine, for what
// agents send and for what servers answer, and it imports nothing of ours.
//
// It exists because the standard library's server repairs what a policy proxy
// must refuse (it accepts Content-Length beside Transfer-Encoding, equal
// Content-Lengths, leading zeros, bare LF, folded lines) and hides the evidence
// from its handlers. Two parsers that repair differently are how a second
// request is smuggled past the one that judged the first.
//
// # What is read
//
// The grammar is RFC 9112's without its concessions. Everything that is not in
// it is refused with an [*Error], never repaired:
//
//	request     = method SP target SP "HTTP/1." ( "0" / "1" ) CRLF *field CRLF
//	response    = "HTTP/1." ( "0" / "1" ) SP status [ SP reason ] CRLF *field CRLF
//	method      = 1*64tchar
//	target      = 1*32768( %x21-7E )          ; the rest of its rules are canon's
//	status      = 3DIGIT                      ; 100 to 599
//	reason      = *( HTAB / SP / %x21-7E / %x80-FF )
//	field       = name ":" OWS value OWS CRLF
//	name        = 1*tchar
//	value       = [ text *( text / SP / HTAB ) ]
//	text        = %x21-7E / %x80-FF
//	tchar       = ALPHA / DIGIT / one of ! # $ % & ' * + - . ^ _ ` | ~
//	OWS         = *( SP / HTAB )
//
//	chunked     = *chunk last-chunk *field CRLF
//	chunk       = size [ extension ] CRLF 1*OCTET CRLF
//	last-chunk  = 1*16"0" [ extension ] CRLF
//	size        = 1*16HEXDIG                  ; below 2^63, no sign, no space
//	extension   = ";" *( HTAB / SP / text )   ; dropped
//
// So there is no bare LF, no bare CR, no NUL or other control byte, no folded
// line, no space before a colon, no empty line before a message.
//
// # Framing
//
// RFC 9112 section 6.3, with every case that two readers could see differently
// refused:
//
//   - Transfer-Encoding is one field whose value is "chunked" in any case, on
//     HTTP/1.1 only, never with Content-Length.
//   - Content-Length is one field, 1 to 19 digits, no leading zero unless it is
//     "0", at most 2^63-1.
//   - Content_Length and Transfer_Encoding are refused: gateways that turn
//     fields into environment variables read them as the real ones.
//   - A request has exactly one Host on HTTP/1.1 and at most one on HTTP/1.0.
//   - A response to HEAD, a 2xx to CONNECT, and 1xx, 204 and 304 have no body,
//     whatever their Content-Length says. Transfer-Encoding is refused on 1xx
//     and 204. Any other response without either field runs to the close.
//   - Trailer fields that would change framing, routing, authentication or
//     cookies after the message was judged are refused.
//
// What is left to the caller: the meaning of the target and of Host, which
// methods may have a body, how many 1xx responses to take, whether a 101 was
// asked for, deadlines, and bytes that follow a response which should have
// been the last (see [Reader.Buffered]).
//
// # Memory
//
// A [Reader] borrows pages of 4, 16 or 64 KiB. Everything it returns aliases a
// page: a head and its fields are valid until the next head is read, [Reader.Wait]
// finds nothing buffered, or [Reader.Release] or [Reader.Reset] is called. Body
// bytes never overwrite the head before them: they are read behind it, or into a
// second page while the head keeps the first. Between messages, blocked in Wait,
// a Reader holds no page at all. What heads and bodies take beyond a small page can be bounded
// over many Readers ([Reader.Bound]); a head that fits one never meets that.
package http1
