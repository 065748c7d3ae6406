# The commands of Nexus. Cargo does the work; these see to what a fresh Debian with Rust lacks.
SHELL := bash
CARGO ?= cargo
BUF_VERSION := 1.75.0
BUF := target/tools/bin/buf

.PHONY: help demo test faults bench check deploy-check buf lint-proto

help: ## what there is
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: ## PostgreSQL, three databases, the daemon, the sample migrations; EXIT=1 ends after the tour
	@deploy/prerequisites.sh postgresql
	$(CARGO) build --bins
	$(CARGO) run --bin nexusd -- demo $(if $(EXIT),--exit)

test: ## every test, against a PostgreSQL of its own
	@deploy/prerequisites.sh postgresql pgbouncer prometheus prometheus-alertmanager
	$(CARGO) test

faults: ## what is left when everything breaks: the matrix of docs/faults.md; ARGS=TEXT runs a part
	@deploy/prerequisites.sh postgresql faketime
	$(CARGO) test --features failpoints --test faults -- $(ARGS)

bench: ## the figures of the README, against psql in the same run; ARGS=PART runs one part
	@deploy/prerequisites.sh postgresql
	$(CARGO) build --release --bins --example bench
	$(CARGO) run --release --example bench $(ARGS)

check: ## format, lints, and the protocol's lints where buf is found
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --all-targets --features failpoints -- -D warnings
	@if command -v buf >/dev/null || [[ -x $(BUF) ]]; then \
	  $(MAKE) --no-print-directory lint-proto; \
	else \
	  echo 'buf was not found: proto/ is not linted (make lint-proto fetches it)'; \
	fi

deploy-check: ## the unit, the image, the manifests and the compose file, by the tools that read them
	@deploy/check.sh

lint-proto: buf ## buf lint, fetching buf where it is missing
	@buf=$$(realpath -q $(BUF) || command -v buf) && cd proto && echo "buf $$("$$buf" --version) lint" && "$$buf" lint

buf: ## buf, kept in target/tools: from npm, or built with go, where it is not on the PATH
	@if command -v buf >/dev/null || [[ -x $(BUF) ]]; then \
	  :; \
	elif command -v npm >/dev/null; then \
	  echo 'buf was not found: fetching it from npm to target/tools'; \
	  npm install --silent --no-save --ignore-scripts --prefix target/tools @bufbuild/buf@$(BUF_VERSION) && \
	  mkdir -p $(dir $(BUF)) && ln -sf ../node_modules/.bin/buf $(BUF); \
	elif command -v go >/dev/null; then \
	  echo 'buf was not found: building it with go to target/tools'; \
	  GOBIN=$(CURDIR)/$(dir $(BUF)) go install github.com/bufbuild/buf/cmd/buf@v$(BUF_VERSION); \
	else \
	  echo 'error: linting proto/ takes buf; to fetch it takes npm or go, and neither is here' >&2; \
	  exit 1; \
	fi
