package policy

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
)

const (
	// maxEstimate refuses an expression when it is loaded: its cost for the
	// largest request there can be, in CEL's units (about 10 ns each).
	maxEstimate = 20_000_000

	// maxCost stops an expression while it runs, which is an error of the
	// condition: an allow rule does not match, a deny rule denies. The
	// library's own cost tracking takes time that grows with the square of the
	// cost in a loop, so this is far below what the loop itself could bear: it
	// is about 0.1 s at worst, a thousand messages take a tenth of it.
	maxCost = 300_000

	maxExpression = 16 << 10 // characters of a when

	// What the estimate takes for sizes that only a request decides. They let
	// a loop inside a loop pass and not three; maxCost is what holds.
	mostEntries = 256 // headers, query keys, elements of one array of a body
	mostText    = 64 << 10
)

// condition is a compiled when.
type condition struct {
	program  cel.Program
	text     string
	needBody bool
	headers  bool            // looks at the headers
	computed bool            // … also at some whose names are not texts in it
	names    map[string]bool // texts in it, in lower case: some are names of headers
	folded   map[string]bool // … those with '_', written with '-'
	grpc     bool            // names application/grpc
}

// newConditionEnv declares what a when sees.
func newConditionEnv() (*cel.Env, error) {
	lists := cel.MapType(cel.StringType, cel.ListType(cel.StringType))
	return cel.NewEnv(
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ParserRecursionLimit(64),
		cel.CrossTypeNumericComparisons(true),
		cel.Variable("request.method", cel.StringType),
		cel.Variable("request.scheme", cel.StringType),
		cel.Variable("request.host", cel.StringType),
		cel.Variable("request.port", cel.IntType),
		cel.Variable("request.path", cel.StringType),
		cel.Variable("request.query", lists),
		cel.Variable("request.headers", lists),
		cel.Variable(bodyVariable, cel.MapType(cel.StringType, cel.DynType)),
	)
}

const bodyVariable = "request.body"

// compileCondition type-checks a when and bounds its cost. Its error is one
// line.
func compileCondition(env *cel.Env, text string) (*condition, error) {
	checked, issues := env.Compile(text)
	if err := issues.Err(); err != nil {
		first := issues.Errors()[0]
		said := firstLine(first.Message)
		if strings.HasPrefix(said, "Syntax error: token recognition error at: '=") {
			said += "; equality is =="
		}
		return nil, fmt.Errorf("is not CEL here: line %d, column %d of the expression: %s", first.Location.Line(), first.Location.Column()+1, said)
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("gives %s, not true or false", t)
	}
	cost, err := env.EstimateCost(checked, sizes{})
	if err != nil {
		return nil, fmt.Errorf("has no known cost: %w", err)
	}
	if cost.Max > maxEstimate {
		return nil, fmt.Errorf("could cost %d for a large request, above the limit of %d: go through fewer lists inside each other", cost.Max, maxEstimate)
	}
	program, err := env.Program(checked, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, fmt.Errorf("is not CEL here: %s", firstLine(err.Error()))
	}
	c := &condition{program: program, text: text, names: map[string]bool{}, folded: map[string]bool{}}
	tree := checked.NativeRep()
	whole := 0 // how often request.headers stands there without a name beside it
	for _, ref := range tree.ReferenceMap() {
		c.needBody = c.needBody || ref.Name == bodyVariable
		c.headers = c.headers || ref.Name == "request.headers"
	}
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.IdentKind:
			if isHeaders(e) {
				whole++
			}
		case ast.CallKind:
			if namesHeader(e.AsCall()) {
				whole--
			}
		case ast.LiteralKind:
			s, isText := e.AsLiteral().Value().(string)
			c.grpc = c.grpc || isText && strings.HasPrefix(s, "application/grpc")
			c.name(s)
		case ast.SelectKind:
			c.name(e.AsSelect().FieldName())
			if isHeaders(e.AsSelect().Operand()) {
				whole--
			}
		case ast.UnspecifiedExprKind, ast.ComprehensionKind, ast.ListKind, ast.MapKind, ast.StructKind:
			// What they are made of is visited too.
		}
	}))
	c.computed = whole > 0
	return c, nil
}

func isHeaders(e ast.Expr) bool {
	return e.Kind() == ast.IdentKind && e.AsIdent() == "request.headers"
}

// namesHeader reports request.headers["name"] or "name" in request.headers.
func namesHeader(call ast.CallExpr) bool {
	args := call.Args()
	switch call.FunctionName() {
	case operators.Index:
		return isHeaders(args[0]) && args[1].Kind() == ast.LiteralKind
	case operators.In:
		return isHeaders(args[1]) && args[0].Kind() == ast.LiteralKind
	}
	return false
}

// tests reports that a field of that name may change what the condition says, also
// to a reader that takes '_' for '-'.
func (c *condition) tests(name []byte) bool {
	lower := strings.ReplaceAll(strings.ToLower(string(name)), "_", "-")
	return c.headers && (c.computed || c.names[lower] || c.folded[lower])
}

// name takes in what may be a header's name.
func (c *condition) name(s string) {
	s = strings.ToLower(s)
	c.names[s] = true
	if strings.IndexByte(s, '_') >= 0 {
		c.folded[strings.ReplaceAll(s, "_", "-")] = true
	}
}

// disguised reports a field that may be one that the condition looks at to an
// origin that reads '_' as '-', and is another to one that does not. One that the
// condition names as it is spelled is none.
func (c *condition) disguised(req *canon.Request) bool {
	if !c.headers {
		return false
	}
	for i := range req.Fields {
		name := req.Fields[i].Name
		if bytes.IndexByte(name, '_') < 0 && len(c.folded) == 0 {
			continue
		}
		lower := strings.ToLower(string(name))
		if !c.names[lower] && (strings.IndexByte(lower, '_') >= 0 || c.folded[lower]) {
			return true
		}
	}
	return false
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// sizes bounds what the checker cannot know.
type sizes struct{}

func (sizes) EstimateSize(n checker.AstNode) *checker.SizeEstimate {
	most := uint64(mostEntries)
	if t := n.Type(); t != nil && t.IsExactType(cel.StringType) {
		most = mostText
	}
	return &checker.SizeEstimate{Max: most}
}

func (sizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}

// facts is what an expression sees of one request, made when first asked for
// and shared by the conditions of one decision.
type facts struct {
	req  *canon.Request
	body map[string]any // nil until the body was read

	query   map[string][]string
	headers map[string][]string
}

// ResolveName is cel's way to ask.
func (f *facts) ResolveName(name string) (any, bool) {
	switch name {
	case "request.method":
		return f.req.Method, true
	case "request.scheme":
		return f.req.Scheme.String(), true
	case "request.host":
		return f.req.Host, true
	case "request.port":
		return int64(f.req.Port), true
	case "request.path":
		return string(f.req.Path), true
	case "request.query":
		return f.queryMap()
	case "request.headers":
		return f.headerMap(), true
	case bodyVariable:
		return f.body, f.body != nil
	}
	return nil, false
}

// Parent is cel's; there is none.
func (f *facts) Parent() cel.Activation { return nil }

// queryMap decodes the query as forms do. One that could be read in two ways
// (a semicolon, a broken percent-encoding) is not there, which makes the
// condition an error.
func (f *facts) queryMap() (any, bool) {
	if f.req.QueryAmbiguous() {
		return nil, false
	}
	if f.query == nil {
		values, err := url.ParseQuery(string(f.req.RawQuery))
		if err != nil {
			return nil, false
		}
		f.query = values
	}
	return f.query, true
}

func (f *facts) headerMap() map[string][]string {
	if f.headers == nil {
		f.headers = make(map[string][]string, len(f.req.Fields))
		for _, field := range f.req.Fields {
			name := strings.ToLower(string(field.Name))
			f.headers[name] = append(f.headers[name], string(field.Value))
		}
	}
	return f.headers
}

var errDisguised = errors.New("a header whose name is another one to some, who read _ as -")

// holds evaluates the condition. An error is a condition that could not be
// answered.
func (c *condition) holds(f *facts) (bool, error) {
	if c.disguised(f.req) {
		return false, errDisguised
	}
	out, _, err := c.program.Eval(f)
	if err != nil {
		return false, fmt.Errorf("evaluating the condition: %w", err)
	}
	answer, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("the condition gave %s, not true or false", out.Type().TypeName())
	}
	return answer, nil
}
