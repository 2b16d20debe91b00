#!/usr/bin/env perl

# One request of an SDK with a traceparent is one connected trace: client -> hashd -> gatewayd -> memory, store, another
# gatewayd, provider. The receiver checks every export against the published OTLP schema.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Otlp;
use EG::Pod;
use IPC::Open2;

my $node = "$FindBin::Bin/../lib/node";
my $M = 'text-embedding-3-small';
my $otlp = EG::Otlp->new;
my $pod = EG::Pod->new(env => { $otlp->env, PURGE_TOKEN => 'purge-secret', OTEL_RESOURCE_ATTRIBUTES => 'deployment.environment.name=te%73t,a=b' });
my $openai = $pod->openai;
my $n = 0;

# A new trace id, and the header for it.
sub traceparent
{
	my ($flags) = @_;
	my $id = sprintf '%031x1', ++$n;
	return ($id, sprintf '00-%s-%016x-%s', $id, 0xc11e47, $flags // '01');
}

sub trace_of { my ($id, @spans) = @_; return grep { $_->{traceId} eq $id } @spans }
sub named { my ($re, @spans) = @_; return grep { $_->{name} =~ $re } @spans }
sub ended { my ($id, $service) = @_; return sub { named(qr{^POST /v1/embeddings$}, grep { $_->{resource}{'service.name'} eq 'hashd' } trace_of($id, @_)) } }

# Every span hangs below the client's or another one of the trace; the chain up from a span, as names.
sub connected
{
	my (@spans) = @_;
	my %known = map { ($_->{spanId} => $_) } @spans;
	return !grep { !$_->{parentSpanId} || ($_->{parentSpanId} ne '0000000000c11e47' && !$known{ $_->{parentSpanId} }) } @spans;
}

sub chain
{
	my ($span, @spans) = @_;
	my %known = map { ($_->{spanId} => $_) } @spans;
	my @names;
	for (; $span; $span = $known{ $span->{parentSpanId} }) {
		unshift @names, "$span->{resource}{'service.name'} $span->{name}";
	}
	return join ' > ', @names;
}

subtest 'an SDK buys' => sub {
	my ($id, $traceparent) = traceparent();
	my $pid = open2(my $out, my $in, 'node', "$node/embed.mjs", $pod->url . '/v1');
	print $in json_encode({ model => $M, input => [ map { "text $_" } 1 .. 8 ],
		options => { headers => { traceparent => $traceparent, tracestate => 'vendor=x,other=y' } } }), "\n";
	close $in;
	is json_decode(scalar <$out>)->{cache}, 'MISS', 'bought';
	waitpid $pid, 0;
	my @spans = trace_of($id, $otlp->wait_spans(ended($id)));
	wait_for { @spans = trace_of($id, $otlp->spans); named(qr/^fetch/, @spans) >= 2 && named(qr/^request$/, @spans) && named(qr/^put/, @spans) == 8 } 'the whole trace';
	ok connected(@spans), 'one connected trace' or diag explain \@spans;
	my @chains = map { chain($_, @spans) } @spans;
	my $front = 'hashd POST /v1/embeddings > hashd request > gatewayd POST /v1/embeddings';
	for my $step (
		[ 'the memory of answers', " > gatewayd look up answer in memory" ],
		[ 'the memory of elements', " > gatewayd look up elements in memory" ],
		[ 'the store', ' > gatewayd get dir' ],
		[ 'the provider', " > gatewayd embeddings $M > gatewayd POST" ],
		[ 'what was bought goes to the store', " > gatewayd embeddings $M > gatewayd put dir" ],
		[ 'that of the other instance as well', " > gatewayd fetch > gatewayd fetch /v1/embeddings > gatewayd embeddings $M > gatewayd put dir" ],
		[ 'the store of the other instance', ' > gatewayd fetch > gatewayd fetch /v1/embeddings > gatewayd get dir' ],
		[ 'the provider by the other instance', " > gatewayd fetch > gatewayd fetch /v1/embeddings > gatewayd embeddings $M > gatewayd POST" ]) {
		ok scalar(grep { $_ eq "$front$step->[1]" } @chains), $step->[0] or diag explain \@chains;
	}
	my %pids = map { ($_->{resource}{'process.pid'} => 1) } @spans;
	is scalar keys %pids, 3, 'three processes';
	my ($server) = named(qr/^POST \//, grep { $_->{resource}{'service.name'} eq 'hashd' } @spans);
	is_deeply [ @{ $server->{attributes} }{qw(http.request.method url.path http.response.status_code gateway.cache.result)} ],
		[ 'POST', '/v1/embeddings', 200, 'MISS' ], 'attributes of the front door';
	is $server->{kind}, 2, 'a server';
	is $server->{resource}{'deployment.environment.name'}, 'test', 'of the resource: decoded';
	my ($buy) = named(qr/^embeddings/, @spans);
	is_deeply [ @{ $buy->{attributes} }{qw(gen_ai.operation.name gen_ai.request.model gen_ai.provider.name)}, $buy->{kind} ],
		[ 'embeddings', $M, 'openai', 3 ], 'attributes of a purchase';
	my %attempts = map { ($_->{spanId} => 1) } named(qr/^POST$/, @spans);
	for my $call (@{ $openai->stats->{log} }) {
		my ($trace, $span) = ($call->{headers}{traceparent} // '') =~ /^00-(\w+)-(\w+)-01$/;
		is $trace, $id, 'the provider gets the trace';
		ok $attempts{$span}, 'and the span of this very call';
		is $call->{headers}{tracestate}, 'vendor=x,other=y', 'and the state';
	}
};

subtest 'a hit' => sub {
	my ($id, $traceparent) = traceparent();
	my @headers = (Authorization => 'Bearer sk-pod', Traceparent => $traceparent);
	$pod->embed('text 1');
	wait_for { $pod->embed('text 1')->{headers}{'x-cache'} eq 'HIT' } 'a hit';
	is $pod->embed('text 1', headers => \@headers)->{headers}{'x-cache'}, 'HIT', 'from memory';
	my @spans = trace_of($id, $otlp->wait_spans(sub { trace_of($id, @_) >= 4 }));
	ok connected(@spans), 'connected';
	is join(', ', sort map { $_->{name} } @spans), 'POST /v1/embeddings, POST /v1/embeddings, look up answer in memory, request', 'its spans';
	my ($line) = grep { ($_->{traceid} // '') eq $id } $pod->hashd->log_lines;
	my ($server) = grep { $_->{resource}{'service.name'} eq 'hashd' && $_->{kind} == 2 } @spans;
	is $line->{spanid}, $server->{spanId}, 'the access log has the ids of the span';
	is $line->{cache}, 'HIT', 'of that request';
};

subtest 'not sampled by the caller' => sub {
	my ($id, $traceparent) = traceparent('00');
	$pod->embed('unseen', headers => [ Authorization => 'Bearer sk-pod', Traceparent => $traceparent ]);
	like $openai->stats->{log}[-1]{headers}{traceparent}, qr/^00-$id-\w{16}-00$/, 'the provider is told so';
	my ($seen, $next) = traceparent();
	$pod->embed('seen', headers => [ Authorization => 'Bearer sk-pod', Traceparent => $next ]);
	my @spans = $otlp->wait_spans(ended($seen));
	is scalar trace_of($id, @spans), 0, 'no span';
	my ($line) = grep { ($_->{traceid} // '') eq $id } $pod->hashd->log_lines;
	ok $line, 'but its id is in the log';
};

subtest 'two wait for one purchase' => sub {
	my @ids = map { [ traceparent() ] } 1 .. 2;
	my $calls = $openai->calls;
	$openai->mode(hold => 1);
	my @requests = map {
		{ url => $pod->url, method => 'POST', target => '/v1/embeddings', body => json_encode({ model => $M, input => 'wanted twice', user => "u$_" }),
			headers => [ 'Content-Type' => 'application/json', Authorization => 'Bearer sk-pod', Traceparent => $ids[$_][1] ] }
	} 0 .. 1;
	my $pid = fork // die;
	if (!$pid) {
		http_many(\@requests, connections => 2);
		POSIX::_exit(0);
	}
	$openai->wait(calls => $calls + 1);
	wait_for { http('GET', $pod->url . '/metrics')->{body} =~ /^hashd_requests_in_flight 2$/m } 'both requests';
	$openai->mode;
	$openai->release;
	waitpid $pid, 0;
	my @spans = $otlp->wait_spans(sub { my @s = @_; !grep { !ended($_->[0])->(@s) } @ids });
	my @links;
	wait_for { @spans = $otlp->spans; @links = map { @{ $_->{links} // [] } } map { trace_of($_->[0], @spans) } @ids } 'a link';
	is scalar @links, 1, 'one of the two has a link';
	my ($buyer) = grep { $_->{spanId} eq $links[0]{spanId} } @spans;
	ok $buyer, 'to a span that is known' or diag explain \@links;
	is $buyer->{traceId}, $links[0]{traceId}, 'in that trace';
	like $buyer->{name}, qr/^(?:embeddings|fetch)/, 'which brought the text';
};

subtest 'errors' => sub {
	my ($id, $traceparent) = traceparent();
	$openai->mode(fault => 'status', status => 400);
	is $pod->embed('refused', headers => [ Authorization => 'Bearer sk-pod', Traceparent => $traceparent ])->{status}, 400, 'refused';
	$openai->mode;
	my @spans = trace_of($id, $otlp->wait_spans(ended($id)));
	wait_for { @spans = trace_of($id, $otlp->spans); named(qr/^POST$/, @spans) } 'the attempt';
	my ($attempt) = named(qr/^POST$/, @spans);
	is $attempt->{status}{code}, 2, 'the attempt failed';
	is $attempt->{attributes}{'error.type'}, '400', 'with the status';
	my ($server) = named(qr/^POST \//, @spans);
	ok !$server->{status}, 'for a server, 400 is no error of its own';
};

subtest 'a purge' => sub {
	my ($id, $traceparent) = traceparent();
	my $broadcaster = daemon('broadcasterd', http => 1, rpc => 'broadcasterd.sock', env => { $otlp->env, PURGE_TOKEN => 'purge-secret',
		BROADCASTERD_TARGETS => $pod->gatewayd(0)->address });
	is http('PURGE', $broadcaster->url . '/v1/models', [ Traceparent => $traceparent, Tracestate => 'vendor=x' ])->{status}, 200, 'everybody has purged';
	my @spans;
	# The broadcast and its three deliveries; what each gatewayd does for them. Each exports on its own time.
	$otlp->wait_spans(sub { @spans = trace_of($id, @_); @spans >= 4 + 9 && connected(@spans) });
	ok connected(@spans), 'one connected trace' or diag explain \@spans;
	my %n;
	$n{ chain($_, @spans) }++ for @spans;
	my $top = 'broadcasterd PURGE';
	is $n{$top}, 1, 'the broadcast';
	is $n{"$top > broadcasterd purge > gatewayd purge"}, 2, 'two instances over RPC';
	is $n{"$top > broadcasterd PURGE > gatewayd PURGE /v1/models"} // $n{"$top > broadcasterd PURGE > gatewayd PURGE"}, 1, 'one over HTTP' or diag explain \%n;
	my ($server) = grep { $_->{kind} == 2 && $_->{resource}{'service.name'} eq 'broadcasterd' } @spans;
	is_deeply [ @{ $server->{attributes} }{qw(http.response.status_code gateway.purge.targets gateway.purge.scope)} ], [ 200, 3, 'path' ], 'its attributes';
	my ($line) = grep { $_->{body} eq 'purge' } $broadcaster->log_lines;
	is $line->{traceid}, $id, 'its line in the log';
	is $line->{spanid}, $server->{spanId}, 'with the span';
	for my $i (0, 1) {
		my @lines = grep { $_->{body} eq 'purge' && $_->{traceid} eq $id } $pod->gatewayd($i)->log_lines;
		cmp_ok scalar(@lines), '>', 0, "and that of gatewayd.$i";
	}
	# One that cannot be told: its delivery has failed, and is not told by a span again and again.
	($id, $traceparent) = traceparent();
	$pod->gatewayd(1)->signal('STOP');
	my $late = daemon('broadcasterd', http => 1, rpc => 'late.sock', allow => qr/not purged/, env => { $otlp->env, PURGE_TOKEN => 'purge-secret', BROADCASTERD_TIMEOUT => '200ms',
		BROADCASTERD_CONNECT_TIMEOUT => '100ms', BROADCASTERD_RETRY_INTERVAL => '20ms' });
	is http('PURGE', $late->url . '/v1/models', [ Traceparent => $traceparent ])->{status}, 502, 'not all have purged';
	$pod->gatewayd(1)->signal('CONT');
	$late->wait_log(qr/"pending purge ended"/);
	@spans = trace_of($id, $otlp->wait_spans(sub { grep { $_->{name} eq 'PURGE' } trace_of($id, @_) }));
	my @failed = grep { $_->{status} && $_->{attributes}{'error.type'} eq 'timeout' } @spans;
	cmp_ok scalar(@failed), '>=', 1, 'a delivery that failed';
	is scalar(grep { $_->{name} eq 'purge' && $_->{resource}{'service.name'} eq 'broadcasterd' } @spans), 2, 'one span for each target, however often it is told';
	($line) = grep { $_->{body} eq 'pending purge ended' } $late->log_lines;
	is $line->{traceid}, $id, 'whose end is found by the trace as well';
};

$pod->restart;
my @exports = $otlp->exports;
is join("\n", grep { defined } map { $_->{schema} } @exports), '', scalar(@exports) . ' exports, all as the schema has it';
is scalar(grep { $_->{path} ne '/v1/traces' } @exports), 0, 'at the path for traces';
my %ids;
$ids{ $_->{spanId} }++ for $otlp->spans;
is scalar(grep { $_ > 1 } values %ids), 0, 'every span once';

done_testing;
