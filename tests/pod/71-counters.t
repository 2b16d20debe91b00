#!/usr/bin/env perl

# Counters add up: mixed load with faults through both daemons, and what they count is what clients and the
# provider saw, to the request, the element, the call and the token.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Pod;

# The second tier refuses connections: counted apart.
my $closed = listen_tcp();
my $s3 = 'http://127.0.0.1:' . $closed->sockport;
close $closed;
my $pod = EG::Pod->new(gatewayds => 2, env => { STORE => 'dir,s3', S3_BUCKET => 'vectors', S3_ENDPOINT_URL => $s3, AWS_ACCESS_KEY_ID => 'a',
	AWS_SECRET_ACCESS_KEY => 'b', MAX_RETRIES => 1, CIRCUIT_BREAKER_THRESHOLD => 1000, TERMINATION_GRACE_PERIOD => '1s',
	TOKEN_PRICES => 'text-embedding-3-small=0.02' }, allow => qr/store|grace|lost/);
my $openai = $pod->openai;
my $M = 'text-embedding-3-small';

# Sums over the daemons' pages: name{labels} => value; and name => sum of all its series.
sub counters
{
	my %sum;
	for my $d (@_) {
		for (split /\n/, http('GET', $d->url . '/metrics')->{body}) {
			my ($name, $labels, $value) = /^([a-z_]+)(\{[^}]*\})? (\S+)$/ or next;
			$sum{$name} += $value;
			$sum{"$name$labels"} += $value if defined $labels;
		}
	}
	return \%sum;
}
sub by { my ($sum, $name, $label, $value) = @_; my $n = 0; $n += $sum->{$_} for grep { /^\Q$name\E\{.*\b$label="$value"/ } keys %$sum; return $n }

# What there is to ask: few texts, so that requests meet each other.
my $seed = 7;
sub dice { my ($n) = @_; $seed = ($seed * 1103515245 + 12345) & 0x7fffffff; return int($seed / 0x80000000 * $n) }
my @GOOD = (Authorization => 'Bearer sk-pod');
my @requests;
for my $i (1 .. 600) {
	my $kind = dice(20);
	my $input = $kind < 8 ? 'text ' . dice(60) : [ map { 'text ' . dice(300) } 1 .. 1 + dice(120) ];
	my $q = { method => 'POST', target => '/v1/embeddings', headers => \@GOOD,
		body => json_encode({ model => $M, input => $input, dimensions => 8, (dice(2) ? (encoding_format => 'base64') : ()) }) };
	if ($kind == 15) { $q->{headers} = [] }
	elsif ($kind == 16) { $q->{body} = '{"model":' . $i }
	elsif ($kind == 17) { @$q{qw(method target headers body)} = ('GET', '/v1/models', dice(2) ? \@GOOD : [ Authorization => 'Bearer sk-bad' ], undef) }
	elsif ($kind == 18) { $q->{target} = '/v1/nothing' }
	elsif ($kind == 19) { $q->{headers} = [ Authorization => 'Bearer sk-bad' ]; $q->{body} = json_encode({ model => $M, input => "of a bad key $i", dimensions => 8 }) }
	$q->{url} = dice(3) ? $pod->url : $pod->gatewayd(dice(2))->url;
	push @requests, $q;
}

# Some of it is in the store already; all counters begin again.
$pod->embed([ map { "text $_" } 100 .. 149 ], dimensions => 8);
$pod->restart;
$openai->reset;

my (%status, %cache, $elements, $usage);
sub ask_all
{
	my ($name, @q) = @_;
	my @r = http_many(\@q, connections => 24);
	my $broken = grep { !$_->{status} } @r;
	is $broken, 0, "$name: all answered";
	for (@r) {
		$status{ $_->{status} }++;
		my $result = $_->{headers}{'x-cache'};
		$cache{ $_->{status} < 400 ? lc($result // 'none') : 'error' }++;
		next if $_->{status} != 200 || $_->{body} !~ /"embedding"/;
		$elements += () = $_->{body} =~ /"index"/g;
		$usage += $1 if $_->{body} =~ /"total_tokens":\s*(\d+)/;
	}
	return;
}

my @part = map { [ @requests[ $_ * 100 .. $_ * 100 + 99 ] ] } 0 .. 5;
ask_all('well', @{ $part[0] });
for ([ status => 500 ], [ status => 429 ]) {
	$openai->mode(fault => 'status', @$_, match => 'text 1');
	ask_all("some @$_", @{ shift @{ [ splice @part, 1, 1 ] } });
}
$openai->mode(fault => 'bad_json', times => 5);
ask_all('broken answers', @{ $part[1] });
$openai->mode(fault => 'reset', times => 8);
ask_all('resets', @{ $part[2] });
$openai->mode;
ask_all('well again', @{ $part[3] });

my $h = counters($pod->hashd);
my $g = counters($pod->gatewayds);

# Through hashd, of clients: own paths (readyz, metrics) are no business of gatewayd's.
is $g->{gatewayd_requests_total}, 600, 'gatewayd counted every request';
is by($g, 'gatewayd_requests_total', 'status', $_), $status{$_}, "status $_: as clients saw it" for sort keys %status;
for my $result (qw(hit stale partial miss coalesced pass error)) {
	is by($g, 'gatewayd_requests_total', 'result', $result), $cache{$result} // 0, "$result: as X-Cache said";
}
my $through = grep { $_->{url} eq $pod->url } @requests;
is $h->{gatewayd_requests_total}, undef, 'hashd speaks for itself';
cmp_ok $h->{hashd_requests_total}, '>=', $through, 'hashd counted its share';
is by($h, 'hashd_request_failures_total', 'reason', '\w+'), 0, 'and no failure of its own';

is $g->{gatewayd_elements_total}, $elements, 'elements: memory + store + bought + joined';
is $g->{processed_tokens_total}, $usage, 'tokens of the answers';

my $seen = $openai->stats;
my @calls = @{ $seen->{log} };
is $g->{openai_tokens_used_total}, $seen->{tokens} - lost(@calls), 'tokens that were paid and came';
cmp_ok $g->{saved_tokens_total}, '<=', $usage, 'saved tokens are part of them';
cmp_ok abs($g->{saved_dollars_total} - $g->{saved_tokens_total} * 0.02 / 1e6), '<', 1e-12, 'and cost what they cost';

# Store tiers: what missed in one was looked for in the next.
my %look = map { my $tier = $_; $tier => { map { $_ => by($g, 'gatewayd_store_look_ups_total', "store=\"$tier\",result", $_) } qw(hit miss legacy legacy_miss corrupt error abandoned) } } qw(dir s3);
cmp_ok $look{dir}{hit}, '>', 30, 'the directory had some';
my $missed = $look{dir}{miss} + $look{dir}{legacy_miss} + $look{dir}{corrupt};
is $look{s3}{error} + $look{s3}{abandoned}, $missed, 'S3 was asked for what the directory missed, and refused all of it' or diag explain \%look;
is $look{s3}{$_}, 0, "no $_ there" for qw(hit miss legacy legacy_miss corrupt);

is $g->{gatewayd_provider_attempts_total}, $seen->{requests}, 'every call to the provider, lists of models and all';

# The tokens of answers that the provider counted and spoilt.
sub lost { my $n = 0; $n += $_->{tokens} for grep { $_->{tokens} && !came($_) } @_; return $n }
sub came { my ($call) = @_; return $call->{status} == 200 && !$call->{fault} }

done_testing;
