package EG::Otlp;

# A collector that checks what it gets against the published OTLP schema (tests/lib/node/otlp_receiver.cjs).
#
#   use EG::Otlp;                       # skips the test where Node or its packages are missing
#   my $otlp = EG::Otlp->new;           # $otlp->env: the settings of a daemon that exports to it
#   my @spans = $otlp->wait_spans(sub { grep { $_->{name} eq 'x' } @_ });
#   $otlp->mode(status => 503);  $otlp->exports;  $otlp->receiver->stop;

use strict;
use warnings;
use EG::Test;

my $node = eg_root() . '/tests/lib/node';

sub import
{
	plan(skip_all => 'Node 20 or newer is not installed') if qx{node -p 'parseInt(process.versions.node) >= 20' 2>&1} !~ /true/;
	plan(skip_all => 'the OTLP schema is not installed (mk/deps test)') if !-d "$node/node_modules/\@opentelemetry/otlp-transformer";
	return;
}

sub new
{
	my ($class) = @_;
	my $out = test_path('exports');
	spew($out, '');
	my $receiver = process('otlp_receiver', [ 'node', "$node/otlp_receiver.cjs" ],
		http => 1, ready => qr/^ready$/m, exit => qr/^(?:0|15)$/, env => { OTLP_OUT => $out });
	return bless { receiver => $receiver, out => $out }, $class;
}

sub receiver { return $_[0]{receiver} }
sub url { return $_[0]{receiver}->url }

# Exported soon, so that no test waits.
sub env { my ($self) = @_; return (OTEL_EXPORTER_OTLP_ENDPOINT => $self->url, OTEL_BSP_SCHEDULE_DELAY => '20') }

sub mode
{
	my ($self, %mode) = @_;
	http('POST', $self->url . '/_mode', [], json_encode(\%mode));
	return $self;
}

# All that came so far.
sub exports { my ($self) = @_; return map { json_decode($_) } split /\n/, slurp($self->{out}) }

# Those whose export was accepted, flat: attributes and resource are hashes.
sub spans
{
	my ($self) = @_;
	my @spans;
	for my $export (grep { $_->{status} == 200 && $_->{path} eq '/v1/traces' } $self->exports) {
		for my $resource (@{ $export->{body}{resourceSpans} }) {
			my %resource = _attributes($resource->{resource});
			for my $span (map { @{ $_->{spans} } } @{ $resource->{scopeSpans} }) {
				push @spans, { %$span, attributes => { _attributes($span) }, resource => \%resource };
			}
		}
	}
	return @spans;
}

sub _attributes { my ($of) = @_; return map { ($_->{key} => (values %{ $_->{value} })[0]) } @{ $of->{attributes} // [] } }

# The spans, once the condition holds for them.
sub wait_spans
{
	my ($self, $condition) = @_;
	my @spans;
	eval { wait_for { @spans = $self->spans; $condition->(@spans) } 'spans'; 1 } or do {
		diag explain [ map { [ @$_{qw(status schema)} ] } $self->exports ];
		diag "$_->{traceId} $_->{name}" for @spans;
		die $@;
	};
	return @spans;
}

1;
