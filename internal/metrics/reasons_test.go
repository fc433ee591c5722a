package metrics

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestR09EveryReasonHasAWord reads the sources of the packages that give
// reasons: a reason that is no label would be counted as "other", and a label
// that is no reason is a word nobody says.
func TestR09EveryReasonHasAWord(t *testing.T) {
	said := map[string]string{"none": "", "other": ""}
	for _, dir := range []string{"http1", "intake", "canon", "policy", "quota", "upstream", "audit", "proxy", "resolver"} {
		files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no sources of %s: %v", dir, err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				for _, word := range reasonsIn(n) {
					said[word] = name
				}
				return true
			})
		}
	}
	for word, where := range said {
		if !slices.Contains(reasonWords[:], word) {
			t.Errorf("%s gives the reason %q, which has no label", where, word)
		}
	}
	for _, word := range reasonWords {
		if _, ok := said[word]; !ok {
			t.Errorf("no package gives the reason %q", word)
		}
	}
}

// reasonsIn are the words that n gives as a reason: a field reason or Reason of
// a literal, a variable reason, or a constant that is named or typed Reason.
func reasonsIn(n ast.Node) []string {
	switch n := n.(type) {
	case *ast.KeyValueExpr:
		if named(n.Key, "reason") {
			return words(n.Value)
		}
	case *ast.AssignStmt:
		if len(n.Lhs) == 1 && named(n.Lhs[0], "reason") {
			return words(n.Rhs...)
		}
	case *ast.ValueSpec:
		if strings.HasPrefix(n.Names[0].Name, "Reason") || n.Type != nil && named(n.Type, "reason") {
			return words(n.Values...)
		}
	}
	return nil
}

func named(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && strings.EqualFold(id.Name, name)
}

func words(values ...ast.Expr) []string {
	var all []string
	for _, v := range values {
		if lit, ok := v.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if word, err := strconv.Unquote(lit.Value); err == nil && word != "" {
				all = append(all, word)
			}
		}
	}
	return all
}
