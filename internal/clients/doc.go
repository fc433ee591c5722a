// Package clients proves that the engine works with clients and servers as
// they are, unchanged and unaware of it. There is no code of ours between a
// client and the wire: the engine is built from this tree and run as users run
// it, `aegrail-engine exec --policy … -- CLIENT` where the client takes proxy
// and trust from its environment, `aegrail-engine serve` where it is told on its
// command line.
//
//	internal/clients/run.sh                     install, then run everything
//	internal/clients/run.sh -run TestCurl -v    what go test takes
//
// # What each test says
//
// A client makes requests that testdata/policy.yaml allows, and some that it does
// not. Allowed ones have the right body. Denied ones fail with a reason that
// can be read in what that client prints: promise 9 is a promise about other
// people's error messages. Then, for every test alike (stage.check):
//
//   - `audit verify` accepts the log;
//   - the log names exactly the requests that were made, each with its verdict;
//   - what the log says was allowed is what the origins say they answered, so
//     nothing went past the engine and nothing denied arrived.
//
// # Where it runs
//
// The suite starts itself again in a user, mount and network namespace of its
// own. There the origins have names, addresses and the usual ports (package
// origin), loopback is all there is, and a client that ignores its proxy variables is caught by
// the comparison above. It needs a kernel that lets users have namespaces; no
// root.
//
// # Which client takes what
//
//	curl                  --proxy and --cacert with serve; environment with exec
//	requests, httpx       environment. Debian's packages, /usr/bin/python3
//	Node.js               environment. npm's node, since Node 20 does not read proxy variables
//	openai, anthropic     environment, by way of Node's fetch
//	@grpc/grpc-js         environment (https_proxy, GRPC_DEFAULT_SSL_ROOTS_FILE_PATH)
//	ws                    environment, but only with {agent: https.globalAgent}: alone it opens its own sockets
//	git                   environment
//	Java                  environment (JAVA_TOOL_OPTIONS), HttpClient and HttpsURLConnection
//	h2load                knows no proxy: a relay in the suite prefixes CONNECT, h2load speaks TLS to the engine
package clients
