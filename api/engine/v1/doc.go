// Package enginev1 is the contract between an engine and aegrail-control: the
// messages and the service of engine.proto, where they are described. All of
// it but this file is generated; internal/link is what speaks it.
package enginev1

//go:generate ../../../.ci/protoc api/engine/v1/engine.proto
