// Package e2e proves the engine on a real Kubernetes: API server, controllers,
// scheduler, kubelet, kube-proxy, containerd, cert-manager and helm as they are,
// without a registry of images. Nothing but Go and Debian's packages is needed.
//
//	internal/e2e/run.sh                         everything (make e2e)
//	internal/e2e/run.sh --stack                 only build what the cluster is made of (make e2e-stack)
//	internal/e2e/run.sh -test.run TestPlain     what a test binary takes
//	internal/e2e/run.sh -hold                   keep the cluster after the tests, to look at it
//
// # The cluster
//
// stack/build.sh builds Kubernetes, etcd, cert-manager and helm from their Go
// modules, once: the binaries stay in a cache outside the tree. run.sh makes a
// network namespace, builds the programs of this tree and starts the test binary
// in that namespace. TestMain makes certificates and images, and starts
// cluster/node.sh in a mount and a pid namespace of its own: one node, containerd
// of Debian, pods on a bridge, with IPv6 beside IPv4. There is no way out of the
// namespace. The node can be switched off and on, as a machine is; the control
// plane goes on meanwhile. All of it ends with the test binary, and run.sh
// removes what is left. What has a name on the machine has run.sh's process
// number in it, so that two runs do not meet.
//
// # The world
//
// What lies beyond the cluster is in the test binary: the cluster's DNS, which
// keeps the names that it was asked for, and origins on public addresses, which
// keep what arrived. They say what got through; the engine's word is not taken.
// Every engine's records go to a sink there, and all of them verify at the end.
// What engines and control say in metrics is scraped from there too, and promtool
// evaluates the alerts and the dashboard that ship over it.
//
// # The pods
//
// One pod is written by hand and served by the chart without control
// (deploy/manifests/plain-agent.yaml), one is behind a gateway
// (deploy/manifests/gateway-agent.yaml), the others are injected. Agents are root,
// and run the program agent/, which knows nothing of the engine or does
// everything to get around it; one is Debian's Node with testdata/load.js. Tests
// have the rows of the catalogue of attacks in their names: E are escapes from a
// pod, K is the CA.
//
// # What a real cluster has and this one has not
//
// A network plugin that enforces NetworkPolicy, several nodes, volumes of storage
// classes, load balancers, and the images that others publish.
package e2e
