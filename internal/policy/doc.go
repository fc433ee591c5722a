// Package policy compiles policy files and decides.
//
// It is pure: no input or output, no clock, no log. What it decides on is a
// canon.Request, the one reading of a request; what it gives is a Decision and,
// where that allows, a Permit, without which nothing is sent upstream. The zero
// value of everything here denies.
//
// # What is decided
//
// A Set holds all policies; a View holds those of one agent. Of an agent's
// rules, those that match a request are found, and then:
//
//   - one deny rule is enough to deny, whatever the order
//   - else one allow rule is enough to allow
//   - else the answer is no, with the reason that came nearest to yes
//
// A rule matches by host, port, scheme, method, path, opt-ins and condition.
// Of the allow rules that match, the first in the order of the files names the
// decision (allowlists come last); the limits of all are counted, the smallest
// requestBytes holds, header edits of all are made, addresses unite, roots and
// pins hold if one rule has them, and of the recordPath that rules set, the one
// that records most.
//
// # Deny rules see more
//
// Left out, the scheme and ports of a deny rule are all of them, and "*" covers
// addresses. A deny rule also sees the other readings of what an allow rule
// opted in to: an encoded slash as a slash, a segment without its parameters,
// a path without its empty segments. A request that overrides its method or
// path by a header says neither for certain, so every deny rule of its host
// covers it.
//
// # Conditions
//
// A when is CEL (Common Expression Language). It sees
//
//	request.method, request.scheme, request.host, request.path   text
//	request.port                                                 number
//	request.query, request.headers      map from name to list of text;
//	                                    header names in lower case
//	request.body.json                   the body, read strictly; has() tells
//	                                    whether there is one
//
// A name that is not in a map is an error of the condition, and so is, where it
// looks at request.headers, a header with a '_' in its name that the condition does
// not name: CGI reads X_Role as X-Role, and others do not. An error makes an
// allow rule not match and a deny rule deny. A body that a rule would read and
// that has more than one reading is denied, whatever other rules say.
//
// # Observe
//
// Where all policies of an agent observe, a denial by policy becomes an Allow
// that is marked Observed and keeps its reason. That never holds for input with
// two readings, for bodies that are refused, for an unknown upgrade, nor for a
// passthrough tunnel: an unseen tunnel is a rule's choice alone.
//
// # Cost
//
// Hosts are found by one lookup and a walk along their labels, paths by a walk
// along their segments. So a decision costs as much as host and path are deep,
// and not what the number of rules is. Without a condition it does not
// allocate.
package policy
