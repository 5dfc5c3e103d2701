package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// module is what the packages that the documents speak of declare.
type module struct{ packages map[string]*pkg }

// pkg is what a package declares.
type pkg struct {
	// names are its functions, constants, variables and types.
	names map[string]bool
	// methods are the methods and fields of a type.
	methods map[string]map[string]bool
	// embeds are the types of the same package that a type embeds or is an alias
	// of, without their type parameters.
	embeds map[string][]string
	// tests are its test functions.
	tests map[string]bool
}

// parseModule reads the packages that asyncio.md names.
func parseModule(t *testing.T) *module {
	t.Helper()
	m := &module{packages: map[string]*pkg{}}
	for _, name := range []string{"backend", "loop", "sockapi", "transport"} {
		p := &pkg{map[string]bool{}, map[string]map[string]bool{}, map[string][]string{}, map[string]bool{}}
		files, err := filepath.Glob(filepath.Join("..", name, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("package %s: %d files, %v", name, len(files), err)
		}
		for _, path := range files {
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, src, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			p.add(f, strings.HasSuffix(path, "_test.go"))
		}
		m.packages[name] = p
	}
	return m
}

// add takes the declarations of a file; of a test file only the tests.
func (p *pkg) add(f *ast.File, isTest bool) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			switch {
			case isTest && d.Recv == nil && strings.HasPrefix(d.Name.Name, "Test"):
				p.tests[d.Name.Name] = true
			case isTest:
			case d.Recv == nil:
				p.names[d.Name.Name] = true
			default:
				p.method(typeName(d.Recv.List[0].Type), d.Name.Name)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if !isTest {
					p.addSpec(s)
				}
			}
		}
	}
}

// addSpec takes a constant, variable or type.
func (p *pkg) addSpec(s ast.Spec) {
	switch s := s.(type) {
	case *ast.ValueSpec:
		for _, n := range s.Names {
			p.names[n.Name] = true
		}
	case *ast.TypeSpec:
		p.names[s.Name.Name] = true
		switch u := s.Type.(type) {
		case *ast.StructType:
			p.fields(s.Name.Name, u.Fields)
		case *ast.InterfaceType:
			p.fields(s.Name.Name, u.Methods)
		default:
			if s.Assign.IsValid() {
				p.embed(s.Name.Name, u)
			}
		}
	}
}

// fields takes the fields of a struct or the methods of an interface.
func (p *pkg) fields(of string, list *ast.FieldList) {
	for _, f := range list.List {
		if len(f.Names) == 0 {
			p.embed(of, f.Type)
		}
		for _, n := range f.Names {
			p.method(of, n.Name)
		}
	}
}

func (p *pkg) embed(in string, typ ast.Expr) { p.embeds[in] = append(p.embeds[in], typeName(typ)) }

func (p *pkg) method(of, name string) {
	if p.methods[of] == nil {
		p.methods[of] = map[string]bool{}
	}
	p.methods[of][name] = true
}

// typeName returns the name of a type without pointer and type parameters,
// empty for one of another package.
func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.IndexExpr:
		return typeName(e.X)
	case *ast.IndexListExpr:
		return typeName(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// has reports whether package.Name or package.Type.Member exists and is
// exported.
func (m *module) has(symbol string) bool {
	parts := strings.Split(symbol, ".")
	if len(parts) < 2 || len(parts) > 3 {
		return false
	}
	for _, part := range parts[1:] {
		if !ast.IsExported(part) {
			return false
		}
	}
	p := m.packages[parts[0]]
	if p == nil || !p.names[parts[1]] {
		return false
	}
	return len(parts) == 2 || p.member(parts[1], parts[2])
}

// member reports whether a type has a method or field, of its own or by
// embedding.
func (p *pkg) member(typ, name string) bool {
	if p.methods[typ][name] {
		return true
	}
	for _, e := range p.embeds[typ] {
		if p.member(e, name) {
			return true
		}
	}
	return false
}
