#!/usr/bin/env perl

# However many ask for a text at the same moment, it is bought once.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Pod;

use constant MANY => 1000;

my $pod = EG::Pod->new;
my $openai = $pod->openai;

sub storm
{
	my ($name, $url, @bodies) = @_;
	$openai->reset;
	$openai->mode(hold => JSON::PP::true);
	my $n = MANY;
	my $release = fork // die;
	if (!$release) {
		# Held until all have asked.
		$openai->wait(held => 1);
		EG::Test::until_true(sub {
			my $page = http('GET', "$url/metrics")->{body};
			$page =~ /^hashd_requests_in_flight (\d+)$/m ? $1 == $n : $page =~ /^process_open_fds (\d+)$/m && $1 > $n;
		}, 'all requests to be under way');
		$openai->release;
		POSIX::_exit(0);
	}
	my @r = http_many([ map { { url => $url, method => 'POST', target => '/v1/embeddings',
		headers => [ Authorization => 'Bearer sk-pod' ], body => $bodies[ $_ % @bodies ] } } 1 .. $n ], connections => $n);
	waitpid $release, 0;
	is scalar(grep { $_->{status} == 200 } @r), $n, "$name: all answered";
	is $openai->stats->{inputs}, 1, "$name: bought once";
	my %data;
	$data{ $_->{body} =~ /"embedding":\s*"([^"]+)"/ ? $1 : $_->{body} }++ for @r;
	is scalar keys %data, 1, "$name: one answer for all";
	return;
}

storm('through hashd', $pod->url, '{"model":"text-embedding-3-small","input":"one for all","encoding_format":"base64"}');
storm('straight to one gatewayd', $pod->gatewayd(0)->url, '{"model":"text-embedding-3-small","input":"and again","encoding_format":"base64"}');

done_testing;
