# The commands of Nexus. Cargo does the work; these see to what a fresh Debian with Rust lacks.
SHELL := bash
CARGO ?= cargo
BUF_VERSION := 1.75.0
BUF := target/tools/bin/buf

.PHONY: help demo test faults bench soak check fuzz deny advisories sbom dist deploy-check buf lint-proto

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

soak: ## half an hour of work and harm on 50 databases, and a count of what it left; ARGS="--minutes 2"
	@deploy/prerequisites.sh postgresql
	$(CARGO) build --bins --example soak
	$(CARGO) run --example soak -- $(ARGS)

check: ## format, lints, and the protocol's lints where buf is found
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --all-targets --features failpoints -- -D warnings
	@if command -v buf >/dev/null || [[ -x $(BUF) ]]; then \
	  $(MAKE) --no-print-directory lint-proto; \
	else \
	  echo 'buf was not found: proto/ is not linted (make lint-proto fetches it)'; \
	fi

fuzz: ## migration files, configurations, requests and URLs, by libFuzzer; SECONDS=600 for each, TARGETS='url'
	@fuzz/run.sh $(or $(SECONDS),60) $(TARGETS)

deny: ## the licences, versions and sources of every crate, against deny.toml
	@tool=$$(deploy/cargo-tools.sh cargo-deny) && "$$tool/cargo-deny" --locked check --hide-inclusion-graph bans licenses sources

advisories: ## known vulnerabilities in the crates; fetches RustSec's database with git
	@tool=$$(deploy/cargo-tools.sh cargo-deny) && "$$tool/cargo-deny" --locked check advisories

sbom: ## what is in the binaries, as CycloneDX: target/dist/nexus.cdx.json
	@deploy/dist.sh sbom

dist: ## an archive of the release's binaries, which list their crates, with the SBOM
	@deploy/dist.sh

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
