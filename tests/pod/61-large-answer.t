#!/usr/bin/env perl

# The largest answer there is, 2,048 embeddings of 3,072 numbers as text, streamed through the pod, from a
# provider that sends base64 as it was asked to and from one that sends numbers all the same: what it costs
# in memory beside the arena, and what those who ask for little meanwhile feel.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Pod;
use IO::Select;
use List::Util qw(max);
use MIME::Base64 qw(encode_base64);

my $sanitized = ($ENV{EG_BIN} // '') =~ /sanitize/;

# A provider that answers at once, all in one: tests/lib/fake_openai takes a minute to make six million
# numbers. 16 vectors take turns.
my $listener = listen_tcp();
my $port = $listener->sockport;
my $provider = fork // die "fork: $!";
if (!$provider) {
	my @floats = map { my $v = $_; pack 'f<*', map { sin($v * 3072 + $_) / 40 } 1 .. 3072 } 0 .. 15;
	my %vectors = (
		base64 => [ map { '"' . encode_base64($_, '') . '"' } @floats ],
		# All digits that these doubles have.
		numbers => [ map { '[' . join(', ', map { sprintf '%.17g', $_ } unpack 'f<*', $_) . ']' } @floats ],
	);
	$SIG{PIPE} = 'IGNORE';
	while (my $c = $listener->accept) {
		my $in = '';
		while ($in !~ /\r\n\r\n/ || length $in < $+[0] + ($in =~ /^content-length: (\d+)/im ? $1 : 0)) {
			last if !sysread $c, $in, 1 << 20, length $in;
		}
		my $asked = eval { json_decode($in =~ s/^.*?\r\n\r\n//sr) } // next;
		my $n = ref $asked->{input} ? @{ $asked->{input} } : 1;
		my $vectors = $vectors{ $asked->{model} };
		my $chunk = sub { printf $c "%x\r\n%s\r\n", length $_[0], $_[0] };
		print $c "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
		$chunk->('{"object":"list","data":[');
		$chunk->(($_ ? ',' : '') . qq({"object":"embedding","index":$_,"embedding":$vectors->[$_ % 16]})) for 0 .. $n - 1;
		$chunk->(qq(],"model":"$asked->{model}","usage":{"prompt_tokens":$n,"total_tokens":$n}}));
		$chunk->('');
		close $c;
	}
	POSIX::_exit(0);
}
close $listener;
END { kill KILL => $provider if $provider }

my $pod = EG::Pod->new(gatewayds => 1, env => { OPENAI_BASE_URL => "http://127.0.0.1:$port/v1", STORE => 'none' });
my ($hashd, $gatewayd) = ($pod->hashd, $pod->gatewayd(0));

# Memory that is the process's own, the shared arena apart.
sub uss_kb
{
	my ($sum, $counts) = (0, 1);
	for (split /\n/, slurp('/proc/' . $_[0]->pid . '/smaps')) {
		$counts = !/memfd:arena/ if /^[0-9a-f]+-[0-9a-f]+ /;
		$sum += $1 if $counts && /^Private_(?:Clean|Dirty):\s+(\d+)/;
	}
	return $sum;
}

sub post
{
	my ($model, $input) = @_;
	return { url => $pod->url, method => 'POST', target => '/v1/embeddings', headers => [ 'Content-Type' => 'application/json', Authorization => 'Bearer sk-large' ],
		body => json_encode({ model => $model, encoding_format => 'float', input => $input }) };
}

# Read in pieces and thrown away; what was used at most meanwhile.
sub stream
{
	my ($request) = @_;
	my $c = IO::Socket::INET->new(PeerAddr => $hashd->address) or die $!;
	print $c "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
		. "Authorization: Bearer sk-large\r\nConnection: close\r\n"
		. 'Content-Length: ' . length($request->{body}) . "\r\n\r\n$request->{body}";
	$c->flush;
	my ($bytes, $start, $end, @seen) = (0, '', '', 0, 0);
	my (@small_ms, $pieces);
	my $readable = IO::Select->new($c);
	while (1) {
		# Also while nothing comes: then it is bought.
		my $quiet = !$readable->can_read(0.005);
		if (!$quiet) {
			sysread $c, my $data, 1 << 20 or last;
			$start = substr $data, 0, 2000 if !$bytes;
			$end = substr $end . $data, -40;
			$bytes += length $data;
		}
		next if !$quiet && $pieces++ % 50;
		my @now = (uss_kb($hashd), uss_kb($gatewayd));
		$seen[$_] = max($seen[$_], $now[$_]) for 0, 1;
		my ($r) = http_many([ post(base64 => 'a small one') ]);
		push @small_ms, $r->{ms} if $r->{status} == 200;
	}
	return { bytes => $bytes, start => $start, end => $end, hashd => $seen[0], gatewayd => $seen[1], ms => [ sort { $a <=> $b } @small_ms ] };
}

my ($first) = http_many([ post(base64 => 'a small one') ]);
is $first->{status}, 200, 'the provider' or diag $first->{body};

# The numbers are 25 MB while they are bought, and none when they are in the arena. A sanitizer has
# memory of its own.
for ([ 'bought as base64', base64 => 0, 25 + 8 ], [ 'from memory', base64 => 2048, 8 ], [ 'bought as numbers', numbers => 0, 25 + 8 ]) {
	my ($name, $model, $hits, $gatewayd_mb) = @$_;
	my $large = post($model => [ map { "text number $_" } 1 .. 2048 ]);
	my @before = (uss_kb($hashd), uss_kb($gatewayd));
	my $answer = stream($large);
	like $answer->{start}, qr{^HTTP/1.1 200 .*^X-Cache-Hits: $hits/2048\r$}mis, $name;
	cmp_ok $answer->{bytes}, '>', 120e6, 'the size of it';
	# The last chunks may be cut anywhere.
	like $answer->{end} =~ s/\r\n[0-9a-f]+\r\n//gr, qr/"total_tokens":\d+\}\}/, 'to the end';
	my ($hashd_kb, $gatewayd_kb) = map { $answer->{ (qw(hashd gatewayd))[$_] } - $before[$_] } 0, 1;
	cmp_ok $hashd_kb * 1024, '<', $sanitized ? 1 << 30 : 8e6, "hashd needs less than 8 MB for it: $hashd_kb KiB";
	cmp_ok $gatewayd_kb * 1024, '<', $sanitized ? 1 << 30 : $gatewayd_mb * 1e6, "gatewayd needs less than $gatewayd_mb MB for it: $gatewayd_kb KiB";
	my @ms = @{ $answer->{ms} };
	cmp_ok scalar @ms, '>', 5, scalar @ms . ' small requests were answered meanwhile';
	cmp_ok $ms[ @ms / 2 ], '<', 100, "and did not wait for it: median $ms[ @ms / 2 ] ms, longest $ms[-1]";
}

done_testing;
