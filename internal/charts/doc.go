// Package charts checks the Helm chart of charts/aegrail-engine, and what is
// made from it in deploy. It has tests alone, and is a module of its own for
// the sake of helm-docs, which makes the chart's README and is no business of
// the product.
//
// The tests run helm and the engine of this tree:
//
//	make chart        all of them, with helm, helm-unittest and promtool, which .ci/chart installs
//	make manifests    go test -update: makes README, deploy/manifests, deploy/grafana and deploy/alerts anew
//
// What they cannot show without a cluster, internal/e2e does: that the API
// server takes each object, and that control may do what it does.
package charts
