//go:build tools

// Package generators names what scripts/generators builds, so that go.sum has its sums.
package generators

import _ "google.golang.org/protobuf/cmd/protoc-gen-go"
